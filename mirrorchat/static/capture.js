// Records from the microphone, which is open only during a recording.

import { Refusal } from "./server.js";
import { wavOf } from "./wav.js";

export const LONGEST_S = 59.5; // the server takes 60
export const SHORTEST_S = 0.3;

// The server needs the unprocessed voice: noise suppression and gain control for telephones distort it. Nothing plays
// during a recording, so there is no echo to cancel.
const WANTED = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true };

const FAILURES = {
  NotAllowedError: "microphone_denied",
  SecurityError: "microphone_denied",
  NotFoundError: "microphone_missing",
  OverconstrainedError: "microphone_missing",
  NotReadableError: "microphone_taken",
  AbortError: "microphone_taken",
};

/** One recording. `level` is 0 to 1, `seconds` its present length. `onFull` is called once at LONGEST_S. */
export class Recording {
  level = 0;
  #blocks = [];
  #samples = 0;

  /** Open the microphone and start. Throws a Refusal with the reason if it cannot. */
  static async begin(onFull) {
    const recording = new Recording();
    recording.onFull = onFull;
    await recording.#open();
    return recording;
  }

  get seconds() {
    return this.#samples / this.context.sampleRate;
  }

  /** Close the microphone and return the recording as a wav. */
  async end() {
    const flushed = new Promise((resolve) => (this.flushed = resolve));
    this.node.port.postMessage("end");
    await Promise.race([flushed, new Promise((resolve) => setTimeout(resolve, 500))]);
    const rateHz = this.context.sampleRate;
    this.#close();
    return wavOf(this.#blocks, rateHz);
  }

  /** Close the microphone and discard the recording. */
  drop() {
    this.#close();
  }

  async #open() {
    if (!window.isSecureContext) throw new Refusal("insecure_page");
    if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) throw new Refusal("browser_too_old");
    const asked = navigator.mediaDevices.getUserMedia({ audio: WANTED });
    try {
      const prepared = this.#prepare(); // in parallel, so that the first word is not lost
      [this.stream] = await Promise.all([asked, prepared]);
      this.#connect();
    } catch (error) {
      this.#close();
      asked.then(stop, () => {}); // the user may permit it after another step has failed
      if (error instanceof Refusal) throw error;
      throw new Refusal(FAILURES[error.name] ?? "microphone_failed", { message: error.message });
    }
  }

  #connect() {
    this.node = new AudioWorkletNode(this.context, "gather", { channelCount: 1, channelCountMode: "explicit" });
    this.node.port.onmessage = ({ data }) => this.#take(data);
    // connected to the loudspeakers, but silent: some browsers run only connected nodes
    this.context.createMediaStreamSource(this.stream).connect(this.node).connect(this.context.destination);
  }

  async #prepare() {
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule(new URL("./gather.js", import.meta.url)).catch(() => {
      throw new Refusal("network_gone");
    });
    await this.context.resume();
  }

  #take(block) {
    if (block === null) {
      this.flushed?.();
      return;
    }
    this.#blocks.push(block);
    this.#samples += block.length;
    this.level = loudness(block);
    if (this.seconds >= LONGEST_S) {
      this.onFull?.();
      this.onFull = null;
    }
  }

  #close() {
    if (this.stream) stop(this.stream);
    if (this.context && this.context.state !== "closed") this.context.close();
  }
}

function stop(stream) {
  stream.getTracks().forEach((track) => track.stop());
}

/** Return the loudness of samples, from 0 (at most -60 dB of full scale) to 1 (at least -6 dB). */
export function loudness(samples) {
  let energy = 0;
  for (const sample of samples) energy += sample * sample;
  const db = 10 * Math.log10(energy / samples.length + 1e-9);
  return Math.max(0, Math.min(1, (db + 60) / 54));
}
