// Plays pieces of speech one after another without gaps.

import { loudness } from "./capture.js";

const RATE_HZ = 24000; // the rate of the engines, so that pieces join at whole samples
const PREBUFFER_S = 0.08; // before the first piece, and after an underrun

export class Player {
  #next = 0; // the start of the next piece, in samples of the context's clock
  #playing = new Set();
  #out = null;
  #whole = false;

  /** `onEnd` is called when an answer has been played completely. */
  constructor(onEnd) {
    this.onEnd = onEnd;
  }

  /** Prepare to play. Browsers require this during a press of a button. */
  wake() {
    this.context ??= new AudioContext({ sampleRate: RATE_HZ });
    // After a call the state is "suspended", or on iOS "interrupted". If sound is not permitted yet, the next press
    // tries again.
    if (this.context.state !== "running") this.context.resume().catch(() => {});
  }

  /** Start an answer. */
  begin() {
    this.stop();
    this.wake();
    this.#out = this.context.createAnalyser();
    this.#out.fftSize = 1024;
    this.#out.connect(this.context.destination);
    this.#whole = false;
    this.#next = 0;
  }

  /** Play the next piece: 16-bit little-endian samples in base64. */
  add(base64, rateHz) {
    const samples = decode(base64);
    if (!samples.length || !this.#out) return;
    const { context } = this;
    const buffer = context.createBuffer(1, samples.length, rateHz);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(this.#out);
    const now = context.currentTime * context.sampleRate;
    if (this.#next < now) this.#next = Math.ceil(now + PREBUFFER_S * context.sampleRate);
    source.start(this.#next / context.sampleRate);
    this.#next += Math.round(buffer.duration * context.sampleRate);
    this.#playing.add(source);
    source.onended = () => this.#ended(source);
  }

  /** Mark the end of the pieces. */
  finish() {
    this.#whole = true;
    if (!this.#playing.size) this.onEnd();
  }

  /** Whether pieces are left to play. */
  get isPlaying() {
    return this.#playing.size > 0;
  }

  /** Stop at once. */
  stop() {
    for (const source of this.#playing) {
      source.onended = null;
      source.stop();
    }
    this.#playing.clear();
    this.#out?.disconnect();
    this.#out = null;
  }

  /** The present loudness, 0 to 1. */
  get level() {
    if (!this.#out) return 0;
    const samples = new Float32Array(this.#out.fftSize);
    this.#out.getFloatTimeDomainData(samples);
    return loudness(samples);
  }

  #ended(source) {
    this.#playing.delete(source);
    if (this.#whole && !this.#playing.size) this.onEnd();
  }
}

function decode(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length >> 1 }, (_, index) => view.getInt16(2 * index, true) / 32768);
}
