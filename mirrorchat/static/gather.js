// Runs in the audio thread: collects the microphone's samples and posts them in blocks of about 20 ms.

const BLOCK_SAMPLES = 1024;

class Gather extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(BLOCK_SAMPLES);
    this.filled = 0;
    this.ended = false;
    this.port.onmessage = () => {
      this.hand(this.filled);
      this.ended = true;
      this.port.postMessage(null);
    };
  }

  process(inputs) {
    const heard = inputs[0][0];
    for (let at = 0; heard && !this.ended && at < heard.length; ) {
      const part = heard.subarray(at, at + BLOCK_SAMPLES - this.filled);
      this.block.set(part, this.filled);
      this.filled += part.length;
      at += part.length;
      if (this.filled === BLOCK_SAMPLES) this.hand(BLOCK_SAMPLES);
    }
    return !this.ended;
  }

  hand(samples) {
    if (samples) this.port.postMessage(this.block.slice(0, samples));
    this.filled = 0;
  }
}

registerProcessor("gather", Gather);
