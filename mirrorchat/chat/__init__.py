"""The events of a chat API's stream."""
