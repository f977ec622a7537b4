"""The prefix beam search over a recogniser's CTC layer, with hot words."""
