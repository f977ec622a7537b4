"""config.py: what is read, what is refused, and that keys stay hidden."""

from pathlib import Path
from typing import Any

import pytest

from mirrorchat.access.api_keys import hashed
from mirrorchat.errors import ConfigurationError
from mirrorchat.settings import ChatApi, Settings, load_settings


def read(tmp_path: Path, text: str, name: str = "config.py", **environ: str) -> Settings:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return load_settings(environ=environ, folder=tmp_path)


def test_every_setting_has_a_default(tmp_path: Path) -> None:
    settings = load_settings(environ={}, folder=tmp_path)
    assert settings.port == 9990
    assert settings.host == "127.0.0.1"
    assert settings.chatgpt_apis == ()
    assert settings.recognizer == {"chinese": "auto", "english": "auto"}


def test_names_may_be_in_upper_case(tmp_path: Path) -> None:
    assert read(tmp_path, "MAX_TURNS = 2\nCHATGPT_APIS = [{'url': 'http://h/v1', 'key': 'k'}]").max_turns == 2


def test_the_older_layout_is_read_as_it_is(tmp_path: Path) -> None:
    text = "chatgpt_apis = [\n    {'url': 'https://a.example/v1/chat/completions', 'key': 'sk-1'},\n]\n"
    settings = read(tmp_path, text, "chatgpt_api_config.py")
    assert settings.chatgpt_apis[0].endpoint == "https://a.example/v1/chat/completions"
    assert settings.chatgpt_apis[0].key == "sk-1"


def test_the_environment_names_another_file_and_the_address(tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text("max_turns = 7\nport = 1234", encoding="utf-8")
    settings = read(tmp_path, "max_turns = 1", MIRRORCHAT_CONFIG=str(other), MIRRORCHAT_PORT="4321")
    assert (settings.max_turns, settings.port) == (7, 4321)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_turn = 1", "unknown setting 'max_turn'; did you mean 'max_turns'?"),
        ("colour = 1", "unknown setting 'colour'; the settings are allowed_hosts,"),
        ("max_turns = 0", "max_turns must be a whole number from 1 to 64"),
        ("max_waiting = -1", "max_waiting must be a whole number from 0 to 256"),
        ("max_turns = True", "max_turns must be a whole number"),
        ("question_limit_s = 61", "question_limit_s must be a number from 1 to 60"),
        ("question_limit_s = float('nan')", "question_limit_s must be a number"),
        ("recognizer = 'whisper'", "recognizer must be one of auto, wenet, small, embedded, wenet:NAME, or"),
        ("recognizer = 'wenet:'", "recognizer must be one of auto, wenet, small, embedded, wenet:NAME, or"),
        ("recognizer = 1", "or a dict with one of them for chinese and english"),
        ("synthesizer = 'xtts:other'", "synthesizer must be one of auto, xtts, small, embedded, or"),
        ("synthesizer = {'french': 'auto'}", "or a dict with one of them for chinese and english"),
        ("session_ttl_s = 0", "session_ttl_s must be a number from 1 to 86400"),
        ("max_sessions = 0", "max_sessions must be a whole number from 1 to 100000"),
        ("session_memory_mb = 7", "session_memory_mb must be a whole number from 8 to 1000000"),
        ("history_tokens = -1", "history_tokens must be a whole number from 0 to 1000000"),
        ("history_tokens = 1.5", "history_tokens must be a whole number"),
        ("voices_dir = 5", "voices_dir must be the path of a folder"),
        ("api_aliases = 'yes'", "api_aliases must be True or False"),
        ("api_aliases = 1", "api_aliases must be True or False"),
        ("device = 'tpu'", "device must be auto, cpu, cuda or cuda:N"),
        ("device = 'cpu:0'", "device must be auto, cpu, cuda or cuda:N"),
        ("xtts_weights = 'fp64'", "xtts_weights must be one of auto, fp32, fp16w, int8, bf16, fp16"),
        ("chatgpt_apis = {}", "chatgpt_apis must be a list"),
        ("chatgpt_apis = [{'key': 'k'}]", r"chatgpt_apis\[0\] must hold at least 'url'"),
        ("chatgpt_apis = [{'url': 'ftp://h'}]", "must be a text that begins with http:// or https://"),
        ("chatgpt_apis = [{'url': 'http://[::1'}]", "must be a text that begins with http:// or https://"),
        ("chatgpt_apis = [{'url': 'http://h', 'temperature': 3}]", "must be a number from 0 to 2"),
        *(
            (
                f"chatgpt_apis = [{{'url': 'http://h', 'headers': {headers}}}]",
                "must be a dict of header names and texts",
            )
            for headers in ({"X": 1}, {1: "x"}, {"X Y": "x"}, {"X\n": "x"}, {"": "x"}, {"X": "密钥"}, {"X": "a\nb"})
        ),
        ("chatgpt_apis = [{'url': 'http://h', 'extra_body': 'think'}]", "must be a dict of names and JSON values"),
        ("chatgpt_apis = [{'url': 'http://h', 'extra_body': {1: 2}}]", "must be a dict of names and JSON values"),
        ("chatgpt_apis = [{'url': 'http://h', 'extra_body': {'x': {1}}}]", "must be a dict of names and JSON values"),
        ("chatgpt_apis = [{'url': 'http://h', 'extra_body': {'x': 1e999}}]", "must be a dict of names and JSON"),
        ("chatgpt_apis = [{'url': 'http://h', 'modle': 'x'}]", "unknown entry 'modle'; did you mean 'model'?"),
        ("chatgpt_apis = [{'url': 'http://h', 'timeout_s': -1}]", "must be a number from 0.1 to 3600"),
        ("chatgpt_apis = [{'url': 'http://h', 'key': 'a\\nb'}]", "printable ASCII"),
        ("api_keys = 'secret-secret-secret'", "api_keys must be a list; each entry is a key of at least 16"),
        ("api_keys = ['short']", r"api_keys\[0\] must be a key of at least 16 printable ASCII characters"),
        ("api_keys = ['sha256:0123456789abcdef']", "or sha256: and the 64 hexadecimal digits"),
        ("rate_limit_per_minute = -1", "rate_limit_per_minute must be a whole number from 0 to 1000000"),
        ("turns_per_key = 0.5", "turns_per_key must be a whole number from 0 to 1000"),
        ("connections_per_address = 0", "connections_per_address must be a whole number from 1 to 10000"),
        ("partial_requests_per_address = 1.5", "partial_requests_per_address must be a whole number from 1 to 1000"),
        ("allowed_hosts = 'speech.example'", "allowed_hosts must be a list; each entry is a name or an address"),
        ("allowed_hosts = ['speech.example:80']", r"allowed_hosts\[0\] must be a name or an address"),
        ("allowed_hosts = ['https://speech.example']", "without a scheme and without a port"),
        ("allowed_hosts = ['*']", "must be a name or an address in ASCII characters"),
        ("chat_private_urls = 1", "chat_private_urls must be True or False"),
        ("cors_origins = 'https://a.example'", "cors_origins must be a list; each entry is an origin"),
        ("cors_origins = ['https://a.example/']", r"cors_origins\[0\] must be an origin as browsers write it"),
        ("cors_origins = ['https://a', 'https://a:443']", r"cors_origins\[1\] must be an origin as browsers write it"),
        ("cors_origins = ['null']", "must be an origin as browsers write it"),
        ("cors_origins = ['*']", "may hold '\\*' only if api_keys is set"),
        ("trusted_proxies = '127.0.0.1'", "trusted_proxies must be a list; each entry is an address or"),
        ("trusted_proxies = ['nginx']", r"trusted_proxies\[0\] must be an address or a network"),
        ("trusted_proxies = ['10.0.0.1/8']", "must be an address or a network"),
        ("trusted_proxies = ['0.0.0.0/0']", "but not every address"),
        ("system_prompt = 'In {lang}'", "must be a text without braces other than {language}"),
        ("system_prompt = 'In {language.x}'", "must be a text without braces other than {language}"),
        ("host = '0.0.0.0'", "set api_keys"),
        ("threads = 1\nTHREADS = 2", "gives a setting twice"),
        ("key = 'sk-very-secret", "cannot be read: SyntaxError, line 1"),
        ("import nowhere_at_all", "cannot be read: ModuleNotFoundError"),
    ],
)
def test_what_is_refused_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        read(tmp_path, text)
    assert "sk-very-secret" not in str(caught.value)


def test_a_recogniser_can_be_any_model_of_wenets_package(tmp_path: Path) -> None:
    settings = read(tmp_path, "recognizer = {'chinese': 'wenet:paraformer', 'english': 'wenet:~/models/my whisper'}")
    assert settings.recognizer == {"chinese": "wenet:paraformer", "english": "wenet:~/models/my whisper"}


def test_a_named_file_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.py cannot be read"):
        load_settings(tmp_path / "nowhere.py", environ={})


def test_other_machines_need_a_key(tmp_path: Path) -> None:
    keys = ["0123456789abcdef"]
    assert read(tmp_path, f"host = '0.0.0.0'\napi_keys = {keys}").api_keys == tuple(map(hashed, keys))
    for host in ("127.0.0.1", "localhost", "::1"):
        assert read(tmp_path, f"host = {host!r}").host == host


def test_names_are_kept_as_requests_are_compared_with_them(tmp_path: Path) -> None:
    hosts = "allowed_hosts = ['Speech.Example.', '[2001:DB8::1]', '192.0.2.1', 'my_box']"
    assert read(tmp_path, hosts).allowed_hosts == ("speech.example", "2001:db8::1", "192.0.2.1", "my_box")
    environ = {"MIRRORCHAT_ALLOWED_HOSTS": "localhost, Speech.Example\n"}
    assert load_settings(tmp_path / "config.py", environ=environ).allowed_hosts == ("localhost", "speech.example")


def test_what_stands_around_a_header_is_no_part_of_it(tmp_path: Path) -> None:
    (api,) = read(
        tmp_path, "chatgpt_apis = [{'url': 'http://h', 'headers': {'X-Key': ' sk-header\\n', 'Y': ''}}]"
    ).chatgpt_apis
    assert api.headers == {"X-Key": "sk-header", "Y": ""}


def test_keys_are_masked() -> None:
    api = ChatApi("https://user:pass@h.example/v1?key=sk-url", key="sk-secret", headers={"X-Key": "sk-header"})
    settings = Settings(chatgpt_apis=(api,), api_keys=("0123456789abcdef",))
    shown = repr(settings) + str(settings) + api.host
    for secret in ("sk-secret", "sk-header", "sk-url", "pass", "0123456789abcdef"):
        assert secret not in shown
    assert api.host == "h.example"


def test_imports_and_functions_in_a_configuration_are_not_settings(tmp_path: Path) -> None:
    text = "import os\nfrom pathlib import Path\n_private = 1\ndef double(x): return 2 * x\nmax_turns = double(3)\n"
    assert read(tmp_path, text).max_turns == 6


def test_overrides_override_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("port = 1\n", encoding="utf-8")
    value: Any = load_settings(environ={}, folder=tmp_path, port=2)
    assert value.port == 2
