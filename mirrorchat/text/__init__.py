"""Text between the chat and the synthesizer: the splitter into sentences, then text normalization."""
