"""The ``llm`` program, with the gateway's model in its ``extra-openai-models.yaml``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from llm.cli import cli
from telling import KEY, MODEL, URL, tell

HOME = Path(os.environ["LLM_USER_PATH"])
(HOME / "extra-openai-models.yaml").write_text(
    f"- model_id: gateway\n  model_name: {MODEL}\n  api_base: {URL}/v1\n  api_key_name: gateway\n"
    "  supports_tools: true\n  supports_schema: true\n"
)
(HOME / "keys.json").write_text(json.dumps({"gateway": KEY}))
TOOL = 'def get_weather(city: str) -> str:\n    """The weather of a city."""\n    return "18 degrees"\n'


def llm(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    if done.exit_code:
        raise RuntimeError(done.output)
    return done.stdout


def text() -> dict[str, Any]:
    return {"text": llm("-m", "gateway", "--no-stream", "Say hello.").strip()}


def stream() -> dict[str, Any]:
    return {"text": llm("-m", "gateway", "Say hello, and say it slowly.").strip()}


def tools() -> dict[str, Any]:
    llm("-m", "gateway", "--functions", TOOL, "--no-stream", "What is the weather in Paris?")
    logged = json.loads(llm("logs", "--json", "-n", "2"))
    calls = [call for response in logged for call in response.get("tool_calls", ())]
    return {"calls": [[call["name"], call["arguments"]] for call in calls], "text": logged[-1]["response"]}


def structured() -> dict[str, Any]:
    said = json.loads(llm("-m", "gateway", "--schema", "city str", "--no-stream", "Name a city by the sea."))
    return {"city": said["city"]}


tell(text, stream, tools, structured)
