"""Every setting of MirrorChat with its default. Copy this file to config.py and change what you need.

Names may be in upper or lower case. A name that is not listed here stops the server at its start, with a message.
Another place for the file: the environment variable MIRRORCHAT_CONFIG.
"""

# The chat APIs, tried in this order: when one fails, the next answers. None: a parrot says the question back.
# url: the full chat-completions endpoint, or a base URL that ends in /v1.
# Optional in each entry, with the defaults:
#   model                   "gpt-4o-mini"
#   timeout_s               10   seconds to connect, and for each silence within the answer
#   first_token_timeout_s   20   seconds until the first piece of the answer
#   total_timeout_s         60   seconds for the whole answer
#   temperature, max_tokens      not sent unless given
#   headers                      further HTTP headers
chatgpt_apis: list[dict[str, object]] = [
    # OpenAI:
    # {"url": "https://api.openai.com/v1", "key": "sk-...", "model": "gpt-4o-mini"},
    # DeepSeek:
    # {"url": "https://api.deepseek.com/v1", "key": "sk-...", "model": "deepseek-chat"},
    # Ollama on this machine (ollama serve; ollama pull qwen2.5):
    # {"url": "http://127.0.0.1:11434/v1", "key": "", "model": "qwen2.5", "first_token_timeout_s": 60},
    # vLLM on another machine (vllm serve Qwen/Qwen2.5-7B-Instruct --api-key ...):
    # {"url": "http://192.0.2.10:8000/v1/chat/completions", "key": "...", "model": "Qwen/Qwen2.5-7B-Instruct"},
]

# An API that failed is tried last for so many seconds, so that a dead first API does not cost every question its wait.
chat_cooldown_s = 30.0

# What the chat API is told before the question. {language} becomes Chinese or English.
system_prompt = (
    "You answer questions that were asked aloud, and your answer is spoken aloud. Answer in {language}, in one to three"
    " short sentences of plain words: no lists, no markdown, no emoji, no links."
)

# Which engine hears and which one speaks each language. auto: the real one when its weights are in models_dir, else the
# embedded one. A name (recognizer: wenet, embedded; synthesizer: xtts, embedded) must start, or the server refuses to.
# recognizer: wenet:NAME runs a model of WeNet's own package, where that is installed (README): paraformer, firered,
# sensevoice_small, whisper-large-v3, ..., or a folder.
recognizer = {"chinese": "auto", "english": "auto"}
synthesizer = {"chinese": "auto", "english": "auto"}

# Where `mirrorchat models install` puts models. A folder each: wenet-zh/ and wenet-en/ (train.yaml, final.safetensors
# or final.pt, units.txt and global_cmvn of a checkpoint, or final.zip and units.txt of a runtime release), xtts-v2/
# (config.json, vocab.json, model.safetensors or model.pth).
models_dir = "~/.cache/mirrorchat"

# Where voices are kept that callers enrol through OpenAI's API, a file each, only its key's (README). Nothing else is
# ever written there.
voices_dir = "~/.local/share/mirrorchat/voices"

# Where XTTS and WeNet's checkpoints run: auto (the GPU when torch can use one; WeNet on the CPU when both do not fit),
# cpu, cuda or cuda:N. WeNet's runtime releases run on the CPU. What does not fit into memory at the start is stepped
# down: xtts_weights and wenet_weights while they are auto, xtts_batch while it is 8, then where WeNet runs. Other
# values are kept, and the server refuses to start where they do not fit.
device = "auto"

# How WeNet's checkpoints keep their weights. CPU: fp32 or int8. GPU: fp32, bf16 or fp16. auto: int8 on a CPU where the
# C++ library runs, else fp32.
wenet_weights = "auto"

# How XTTS keeps its weights. CPU: fp32, fp16w (16 bits) or int8 (needs AVX512-VNNI); fewer bits speak sooner.
# GPU: fp32, bf16 or fp16. auto: fp16w on the CPU, bf16 on the GPU.
xtts_weights = "auto"

# How many sentences XTTS decodes at once, 1 to 64, and the megabytes for what it remembers of them: fewer sentences run
# at once where they do not fit (255 MB for the longest one, half that in int8 and on a GPU in 16 bits).
xtts_batch = 8
xtts_cache_mb = 2200

# CPU threads of each engine, 1 to 256. Default: the machine's cores, at most 4.
# threads = 4

# Limits of one request: megabytes of upload, seconds of question (60 at most), seconds until it ends with 504. Keep the
# last one under nginx's proxy_read_timeout, and the first one equal to its client_max_body_size.
upload_limit_mb = 12
question_limit_s = 60.0
turn_deadline_s = 100.0

# How many questions are answered at once, 1 to 64 (fewer where speech would not come as fast as it plays), and how many
# wait for their turn, 0 to 256: who finds the queue full, or would wait past the deadline, gets 503 with Retry-After.
max_turns = 4
max_waiting = 16

# Sessions: callers who send the session_id of their last answer back are remembered, in memory only: what was said last
# (up to history_tokens; a Chinese character counts as one, else four characters do; 0: nothing), and the voice, with up
# to 30 s of their speech (1.4 MB) as long as it still grows. Each is forgotten session_ttl_s seconds after its last
# turn, or when there are more than max_sessions and it was used longest ago.
session_ttl_s = 1800.0
max_sessions = 1000
history_tokens = 2000

# Where the server listens. A host that other machines reach needs api_keys. MIRRORCHAT_HOST and MIRRORCHAT_PORT stand
# above these two; scripts/serve --host --port sets them.
host = "127.0.0.1"
port = 9990

# Who may ask: callers send one of these as 'Authorization: Bearer KEY'. Each is a hash, which tells nobody the key
# ("sha256:..."; `mirrorchat key` makes a key and its hash), or a key itself, of at least 16 characters. Empty: all
# may. The environment variable MIRRORCHAT_API_KEYS, with commas or one a line, stands above this list.
api_keys: list[str] = []

# How many requests a minute each key may send, and how many questions of one key are answered or wait at once: more get
# 429 with Retry-After. Where there are no keys, each address is limited instead. 0: no limit.
rate_limit_per_minute = 0
turns_per_key = 0

# Pages of which other origins may call from a browser (CORS): "https://app.example", "http://192.0.2.7:8000", as the
# browser writes them. "*", all of them, is taken only where there are api_keys.
cors_origins: list[str] = []

# Addresses and networks of the proxies that are believed when they say who asks (X-Forwarded-For, X-Forwarded-Proto).
# The default is a proxy on this machine.
trusted_proxies = ["127.0.0.0/8", "::1"]

# Where the voice's chance starts: the same question with the same seed gives the same samples.
seed = 0
