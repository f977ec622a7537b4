// The level around the talk button: the latest levels, equal on both sides, as in a mirror.

const BARS = 30; // on each side
const SHORTEST = 0.02; // lengths are fractions of the canvas's width
const LONGEST = 0.15;
const WIDTH = 0.012;
const RADIUS = 0.335;
const STEP_MS = 40; // the interval at which a new level shifts the others

export class Ring {
  #levels = new Array(BARS).fill(0);
  #movedAt = 0;
  #calm = matchMedia("(prefers-reduced-motion: reduce)");

  /** `level` returns the present loudness, 0 to 1. */
  constructor(canvas, level) {
    this.canvas = canvas;
    this.level = level;
    new ResizeObserver(() => this.#fit()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /** Move while `running`, otherwise come to rest. */
  run(running) {
    cancelAnimationFrame(this.frame);
    if (!running) this.#levels.fill(0);
    const step = (now) => {
      this.#move(now);
      this.#draw();
      this.frame = requestAnimationFrame(step);
    };
    if (running) this.frame = requestAnimationFrame(step);
    else this.#draw();
  }

  #move(now) {
    if (now - this.#movedAt < STEP_MS) return;
    this.#movedAt = now;
    const level = this.level();
    this.canvas.dataset.level = level.toFixed(2);
    if (this.#calm.matches) this.#levels.fill(level);
    else this.#levels = [level, ...this.#levels.slice(0, BARS - 1)];
  }

  #fit() {
    const side = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    this.#draw();
  }

  #draw() {
    const pen = this.canvas.getContext("2d");
    const side = this.canvas.width;
    pen.setTransform(side, 0, 0, side, side / 2, side / 2);
    pen.clearRect(-0.5, -0.5, 1, 1);
    pen.strokeStyle = getComputedStyle(this.canvas).color;
    pen.lineWidth = WIDTH;
    pen.lineCap = "round";
    this.#levels.forEach((level, index) => {
      pen.globalAlpha = 0.3 + 0.7 * Math.min(1, 1.6 * level);
      const angle = (Math.PI * (index + 0.5)) / BARS; // from the bottom upwards
      const reach = RADIUS + SHORTEST + (LONGEST - SHORTEST) * level ** 1.5;
      for (const turn of [Math.PI / 2 + angle, Math.PI / 2 - angle]) {
        pen.beginPath();
        pen.moveTo(RADIUS * Math.cos(turn), RADIUS * Math.sin(turn));
        pen.lineTo(reach * Math.cos(turn), reach * Math.sin(turn));
        pen.stroke();
      }
    });
  }
}
