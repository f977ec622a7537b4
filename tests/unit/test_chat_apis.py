"""Where chat completions are asked for: completed URLs, and the chat API that the environment names."""

from pathlib import Path

import pytest

from mirrorchat.access.chat_apis import CHAT_VARIABLES, OPENAI_URL
from mirrorchat.errors import ConfigurationError
from mirrorchat.settings import ChatApi, Settings, load_settings

KEY = "sk-secret-0123456789"


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        # no path
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434/v1/chat/completions"),
        ("http://127.0.0.1:11434/", "http://127.0.0.1:11434/v1/chat/completions"),
        ("http://[::1]:1234", "http://[::1]:1234/v1/chat/completions"),
        ("https://user:pass@chat.example", "https://user:pass@chat.example/v1/chat/completions"),
        ("https://chat.example?version=2", "https://chat.example/v1/chat/completions?version=2"),
        # a base URL
        ("https://chat.example/v1", "https://chat.example/v1/chat/completions"),
        ("https://chat.example/v1///", "https://chat.example/v1/chat/completions"),
        ("https://chat.example/api/v3", "https://chat.example/api/v3/chat/completions"),
        ("https://chat.example/api/paas/v4/", "https://chat.example/api/paas/v4/chat/completions"),
        ("https://chat.example/v1beta/openai/", "https://chat.example/v1beta/openai/chat/completions"),
        ("https://chat.example/compatible-mode/v1", "https://chat.example/compatible-mode/v1/chat/completions"),
        ("https://chat.example/openai/v1/", "https://chat.example/openai/v1/chat/completions"),
        ("https://chat.example/api", "https://chat.example/api/chat/completions"),
        ("https://chat.example/v1/accounts/a-b/ai/v1", "https://chat.example/v1/accounts/a-b/ai/v1/chat/completions"),
        (
            "https://name.example/openai/deployments/my-chat?api-version=2024-10-21",
            "https://name.example/openai/deployments/my-chat/chat/completions?api-version=2024-10-21",
        ),
        (
            "https://name.example/openai/deployments/my-chat/?api-version=2024-10-21",
            "https://name.example/openai/deployments/my-chat/chat/completions?api-version=2024-10-21",
        ),
        # an endpoint of completions
        ("https://chat.example/v1/chat/completions", "https://chat.example/v1/chat/completions"),
        ("https://chat.example/chat/completions/", "https://chat.example/chat/completions"),
        ("https://chat.example/v1/completions", "https://chat.example/v1/completions"),
        ("https://chat.example/v1/text/chatcompletion_v2", "https://chat.example/v1/text/chatcompletion_v2"),
        (
            "https://name.example/openai/deployments/d/chat/completions?api-version=1",
            "https://name.example/openai/deployments/d/chat/completions?api-version=1",
        ),
        # other endpoints
        ("https://chat.example/v1/chat", "https://chat.example/v1/chat/completions"),
        ("https://chat.example/v1/chat/", "https://chat.example/v1/chat/completions"),
        ("https://chat.example/chat", "https://chat.example/chat/completions"),
        ("https://chat.example/v1/models", "https://chat.example/v1/chat/completions"),
        ("https://chat.example/v1beta/models/", "https://chat.example/v1beta/chat/completions"),
        ("https://chat.example/models?api-version=1", "https://chat.example/models/chat/completions?api-version=1"),
        ("https://chat.example/v1/responses", "https://chat.example/v1/chat/completions"),
        ("https://chat.example/v1/messages", "https://chat.example/v1/chat/completions"),
        ("http://localhost:11434/api/chat/", "http://localhost:11434/api/chat"),
        ("http://localhost:11434/api/generate", "http://localhost:11434/v1/chat/completions"),
        ("http://localhost:11434/api/tags", "http://localhost:11434/v1/chat/completions"),
        # what stands around a URL
        ("  https://chat.example/v1\n", "https://chat.example/v1/chat/completions"),
        ("HTTPS://chat.example/v1#", "https://chat.example/v1/chat/completions"),
    ],
)
def test_a_url_is_completed(url: str, endpoint: str, tmp_path: Path) -> None:
    settings = load_settings(environ={}, folder=tmp_path, chatgpt_apis=[{"url": url}])
    assert settings.chatgpt_apis[0].endpoint == endpoint
    assert ChatApi(endpoint).endpoint == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "localhost:11434", "127.0.0.1:11434/v1", "//chat.example/v1", "http://", "http:///v1", "https://chat.example:99999",
        "https://chat.example:port/v1", "https://chat.example /v1", "https://chat.example/v1\nX", '"https://chat.example"',
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_asked_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^chatgpt_apis\[0\]\['url'\] must be a text that begins with http"):
        load_settings(environ={}, folder=tmp_path, chatgpt_apis=[{"url": url}])


# The environment


def read(folder: Path, text: str = "", **environ: str) -> Settings:
    (folder / "config.py").write_text(text, encoding="utf-8")
    return load_settings(environ=environ, folder=folder)


def named(folder: Path, **environ: str) -> tuple[str, str, str, str]:
    settings = read(folder, **environ)
    (api,) = settings.chatgpt_apis
    return api.url, api.key, api.model, settings.chat_source


def test_openais_variables_name_an_api(tmp_path: Path) -> None:
    assert named(tmp_path, OPENAI_API_KEY=KEY) == (OPENAI_URL, KEY, "gpt-4o-mini", "OPENAI_API_KEY")
    own = {"OPENAI_API_KEY": f" {KEY}\n", "OPENAI_BASE_URL": "http://192.0.2.1:8000/v1", "OPENAI_MODEL": "qwen"}
    assert named(tmp_path, **own) == ("http://192.0.2.1:8000/v1", KEY, "qwen", "OPENAI_API_KEY")


def test_our_variables_name_an_api(tmp_path: Path) -> None:
    url, none = "http://127.0.0.1:11434", "MIRRORCHAT_CHAT_URL"
    assert named(tmp_path, MIRRORCHAT_CHAT_URL=url) == (url, "", "gpt-4o-mini", none)
    own = {"MIRRORCHAT_CHAT_URL": url, "MIRRORCHAT_CHAT_KEY": KEY, "MIRRORCHAT_CHAT_MODEL": "qwen2.5:7b"}
    assert named(tmp_path, **own) == (url, KEY, "qwen2.5:7b", none)
    assert named(tmp_path, MIRRORCHAT_CHAT_KEY=KEY) == (OPENAI_URL, KEY, "gpt-4o-mini", "MIRRORCHAT_CHAT_KEY")


def test_our_variables_override_openais(tmp_path: Path) -> None:
    openai = {"OPENAI_API_KEY": "sk-other", "OPENAI_BASE_URL": "https://other.example/v1", "OPENAI_MODEL": "other"}
    base = openai["OPENAI_BASE_URL"]
    assert named(tmp_path, **openai, MIRRORCHAT_CHAT_MODEL="m") == (base, "sk-other", "m", "OPENAI_API_KEY")
    assert named(tmp_path, **openai, MIRRORCHAT_CHAT_KEY=KEY) == (base, KEY, "other", "MIRRORCHAT_CHAT_KEY")


def test_openais_key_goes_to_no_host_that_our_url_names(tmp_path: Path) -> None:
    openai = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "nonsense", "OPENAI_MODEL": "gpt-x"}
    url = "http://192.0.2.1:8000"
    assert named(tmp_path, **openai, MIRRORCHAT_CHAT_URL=url) == (url, "", "gpt-4o-mini", "MIRRORCHAT_CHAT_URL")


def test_blank_variables_are_not_set(tmp_path: Path) -> None:
    settings = read(tmp_path, **dict.fromkeys(CHAT_VARIABLES, " "))
    assert settings.chatgpt_apis == () and settings.chat_source == ""
    blank = {"MIRRORCHAT_CHAT_URL": "", "MIRRORCHAT_CHAT_KEY": " ", "MIRRORCHAT_CHAT_MODEL": "\n"}
    assert named(tmp_path, OPENAI_API_KEY=KEY, OPENAI_MODEL="gpt-x", **blank) == (
        OPENAI_URL, KEY, "gpt-x", "OPENAI_API_KEY")  # fmt: skip


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_around_a_value_are_no_part_of_it(quote: str, tmp_path: Path) -> None:
    given = {"MIRRORCHAT_CHAT_URL": "http://192.0.2.1", "MIRRORCHAT_CHAT_KEY": KEY, "MIRRORCHAT_CHAT_MODEL": "m"}
    quoted = {name: f"{quote}{value}{quote}" for name, value in given.items()}
    assert named(tmp_path, **quoted) == (*given.values(), "MIRRORCHAT_CHAT_URL")


@pytest.mark.parametrize("model", ["a\nb", "a\x00", "\u2028m"])
def test_a_model_has_printable_characters(model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="MIRRORCHAT_CHAT_MODEL must be a text of printable"):
        read(tmp_path, MIRRORCHAT_CHAT_URL="http://192.0.2.1", MIRRORCHAT_CHAT_MODEL=f"m{model}")
    with pytest.raises(ConfigurationError, match=r"\['model'\] must be a text of printable"):
        load_settings(environ={}, folder=tmp_path, chatgpt_apis=[{"url": "http://192.0.2.1", "model": f"m{model}"}])


def test_an_address_without_a_key_of_openais_names_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, OPENAI_BASE_URL="https://other.example/v1", OPENAI_MODEL="m").chatgpt_apis == ()


@pytest.mark.parametrize(
    "text", ["chatgpt_apis = []", "CHATGPT_APIS = ()", "chatgpt_apis = [{'url': 'http://192.0.2.9/v1', 'model': 'm'}]"]
)
def test_a_list_in_the_file_stays_whatever_the_environment_holds(text: str, tmp_path: Path) -> None:
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "nonsense", "MIRRORCHAT_CHAT_URL": "nonsense"}
    settings = read(tmp_path, text, **environ)
    assert [api.host for api in settings.chatgpt_apis] == (["192.0.2.9"] if "url" in text else [])
    assert settings.chat_source == "chatgpt_apis"
    assert load_settings(environ={"OPENAI_API_KEY": KEY}, folder=tmp_path, chatgpt_apis=[]).chatgpt_apis == ()


def test_a_file_without_the_list_leaves_it_to_the_environment(tmp_path: Path) -> None:
    settings = read(tmp_path, "max_turns = 2", OPENAI_API_KEY=KEY)
    assert (settings.max_turns, settings.chat_source) == (2, "OPENAI_API_KEY")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9990/v1", "http://localhost:9990", "http://[::1]:9990"])
def test_a_server_does_not_ask_itself(url: str, tmp_path: Path) -> None:
    """Who calls MirrorChat with OpenAI's client sets OPENAI_BASE_URL to it, and may start it in the same shell."""
    with pytest.raises(ConfigurationError, match=r"9990 is this server itself \(OPENAI_API_KEY is set\)"):
        read(tmp_path, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=url).check_served()
    with pytest.raises(ConfigurationError, match=r"is this server itself \(chatgpt_apis is set\)"):
        read(tmp_path, f"chatgpt_apis = [{{'url': {url!r}}}]").check_served()
    read(tmp_path, "port = 9991", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=url).check_served()
    read(tmp_path, OPENAI_API_KEY=KEY, OPENAI_BASE_URL="http://192.0.2.1:9990").check_served()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"MIRRORCHAT_CHAT_URL": "127.0.0.1:11434"}, "MIRRORCHAT_CHAT_URL must be a text that begins with http"),
        ({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "chat.example"}, "OPENAI_BASE_URL must be a text that begins"),
        ({"OPENAI_API_KEY": f"{KEY}é"}, "OPENAI_API_KEY must be a text of printable ASCII"),
        ({"MIRRORCHAT_CHAT_KEY": f"{KEY}\nmore"}, "MIRRORCHAT_CHAT_KEY must be a text of printable ASCII"),
        ({"MIRRORCHAT_CHAT_MODEL": "m"}, "MIRRORCHAT_CHAT_MODEL needs MIRRORCHAT_CHAT_URL, MIRRORCHAT_CHAT_KEY or OPE"),
    ],
)  # fmt: skip
def test_a_bad_variable_is_named_and_its_value_is_not_shown(
    environ: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}") as caught:
        read(tmp_path, **environ)
    assert KEY not in caught.value.message


def test_no_secret_is_shown(tmp_path: Path) -> None:
    environ = {"MIRRORCHAT_CHAT_URL": "https://user:pa55word@chat.example/p4th?key=quer7", "MIRRORCHAT_CHAT_KEY": KEY}
    settings = read(tmp_path, **environ)
    shown = repr(settings) + settings.chatgpt_apis[0].host + settings.chat_source
    assert not [secret for secret in (KEY, "pa55word", "p4th", "quer7") if secret in shown]
