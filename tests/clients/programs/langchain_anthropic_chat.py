"""LangChain's ``ChatAnthropic``."""

from __future__ import annotations

from langchain_anthropic import ChatAnthropic
from langchain_chat import chat_cases
from telling import KEY, MODEL, URL, tell

tell(*chat_cases(ChatAnthropic(model=MODEL, base_url=URL, api_key=KEY, max_retries=0, max_tokens=1024)))
