"""The routes of OpenAI's HTTP API."""

from flask import Blueprint

from mirrorchat.openai import chat, models, speech, transcriptions, voices

routes = Blueprint("openai", __name__, url_prefix="/v1")

routes.get("/models")(models.list_models)
routes.get("/models/<path:model_id>")(models.get_model)
routes.post("/audio/transcriptions", endpoint="transcriptions")(transcriptions.create)
routes.post("/audio/translations", endpoint="translations")(transcriptions.translate)
routes.post("/audio/speech", endpoint="speech")(speech.create)
routes.get("/audio/models")(models.list_speech_models)
routes.post("/audio/voices", endpoint="enrol_voice")(voices.create)
routes.get("/audio/voices", endpoint="list_voices")(voices.list_voices)
routes.get("/audio/voices/<voice>", endpoint="get_voice")(voices.get)
routes.delete("/audio/voices/<voice>", endpoint="delete_voice")(voices.delete)
routes.post("/chat/completions", endpoint="chat")(chat.create)
