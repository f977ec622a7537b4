"""The prefix beam search over a recognizer's CTC layer, with hot words."""
