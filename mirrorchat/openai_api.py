"""OpenAI's HTTP API: its routes, for clients that were written for it."""

from flask import Blueprint

from mirrorchat import openai_chat, openai_models, openai_speech, openai_transcriptions, openai_voices

routes = Blueprint("openai", __name__, url_prefix="/v1")

routes.get("/models")(openai_models.list_models)
routes.get("/models/<path:model_id>")(openai_models.get_model)
routes.post("/audio/transcriptions", endpoint="transcriptions")(openai_transcriptions.create)
routes.post("/audio/translations", endpoint="translations")(openai_transcriptions.translate)
routes.post("/audio/speech", endpoint="speech")(openai_speech.create)
routes.post("/audio/voices", endpoint="enrol_voice")(openai_voices.create)
routes.get("/audio/voices", endpoint="list_voices")(openai_voices.list_voices)
routes.get("/audio/voices/<voice>", endpoint="get_voice")(openai_voices.get)
routes.delete("/audio/voices/<voice>", endpoint="delete_voice")(openai_voices.delete)
routes.post("/chat/completions", endpoint="chat")(openai_chat.create)
