// The loudspeakers: pieces of speech one after the other, without a gap where they meet.

import { loudness } from "./capture.js";

const RATE_HZ = 24000; // what the engines speak at: then pieces meet on whole samples
const LEAD_S = 0.08; // before the first piece, and after the server has not kept up

export class Player {
  #next = 0; // in samples of the context's clock: where the next piece begins
  #playing = new Set();
  #out = null;
  #whole = false;

  /** `onEnd` is called when all of an answer has been heard. */
  constructor(onEnd) {
    this.onEnd = onEnd;
  }

  /** Make ready to play; browsers want this inside a press of a button. */
  wake() {
    this.context ??= new AudioContext({ sampleRate: RATE_HZ });
    // "suspended", or on iOS "interrupted", after a call; where it is too early for sound, the next press tries again
    if (this.context.state !== "running") this.context.resume().catch(() => {});
  }

  /** Begin an answer. */
  begin() {
    this.stop();
    this.wake();
    this.#out = this.context.createAnalyser();
    this.#out.fftSize = 1024;
    this.#out.connect(this.context.destination);
    this.#whole = false;
    this.#next = 0;
  }

  /** Play a further piece: 16-bit little-endian samples in base64. */
  add(base64, rateHz) {
    const samples = decode(base64);
    if (!samples.length || !this.#out) return;
    const { context } = this;
    const buffer = context.createBuffer(1, samples.length, rateHz);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(this.#out);
    const now = context.currentTime * context.sampleRate;
    if (this.#next < now) this.#next = Math.ceil(now + LEAD_S * context.sampleRate);
    source.start(this.#next / context.sampleRate);
    this.#next += Math.round(buffer.duration * context.sampleRate);
    this.#playing.add(source);
    source.onended = () => this.#ended(source);
  }

  /** Say that no further piece comes. */
  finish() {
    this.#whole = true;
    if (!this.#playing.size) this.onEnd();
  }

  /** Be silent at once. */
  stop() {
    for (const source of this.#playing) {
      source.onended = null;
      source.stop();
    }
    this.#playing.clear();
    this.#out?.disconnect();
    this.#out = null;
  }

  /** How loud it is now, 0 to 1. */
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
