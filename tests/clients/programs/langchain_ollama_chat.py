"""LangChain's ``ChatOllama``."""

from __future__ import annotations

from langchain_chat import chat_cases
from langchain_ollama import ChatOllama
from telling import KEY, MODEL, URL, tell

tell(*chat_cases(ChatOllama(model=MODEL, base_url=URL, client_kwargs={"headers": {"Authorization": f"Bearer {KEY}"}})))
