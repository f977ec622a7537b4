"""Text between the chat and the voice: split into sentences, then normalized from written to spoken form."""
