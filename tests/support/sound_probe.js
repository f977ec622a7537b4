// Put into the page before its own scripts: what is handed to the loudspeakers, and what really reaches them.
(() => {
  const heard = { pieces: [], ears: [], gatherers: [] };
  const { start } = AudioBufferSourceNode.prototype;
  AudioBufferSourceNode.prototype.start = function (when, ...rest) {
    const samples = Array.from(this.buffer.getChannelData(0));
    heard.pieces.push({ when, now: this.context.currentTime, rate: this.buffer.sampleRate, samples });
    return start.call(this, when, ...rest);
  };
  const { connect } = AudioNode.prototype;
  AudioNode.prototype.connect = function (to, ...rest) {
    if (to instanceof AudioDestinationNode) connect.call(this, earOf(to.context));
    return connect.call(this, to, ...rest);
  };
  window.AudioWorkletNode = class extends AudioWorkletNode {
    constructor(...given) {
      super(...given);
      heard.gatherers.push(this);
    }
  };
  function earOf(context) {
    let ear = heard.ears.find((each) => each.context === context);
    if (!ear) {
      ear = new AnalyserNode(context, { fftSize: 32768 });
      heard.ears.push(ear);
    }
    return ear;
  }
  // the last samples of the context that plays: the one whose rate the speech has
  heard.last = (count) => {
    const ear = heard.ears.find((each) => each.context.sampleRate === 24000);
    if (!ear) return [];
    const samples = new Float32Array(ear.fftSize);
    ear.getFloatTimeDomainData(samples);
    return Array.from(samples.slice(-count));
  };
  window.heard = heard;
})();
