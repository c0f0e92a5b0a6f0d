"""LangChain's ``ChatOpenAI``."""

from __future__ import annotations

from langchain_chat import chat_cases
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from telling import KEY, MODEL, URL, tell

model = ChatOpenAI(model=MODEL, base_url=f"{URL}/v1", api_key=KEY, max_retries=0, stream_usage=True)


def responses() -> dict[str, object]:
    over = ChatOpenAI(model=MODEL, base_url=f"{URL}/v1", api_key=KEY, max_retries=0, use_responses_api=True)
    return {"text": over.invoke("Say hello.").text}


def embeddings() -> dict[str, object]:
    # Without a tokenizer of its own: it would be fetched from the network.
    vectors = OpenAIEmbeddings(
        model=MODEL, base_url=f"{URL}/v1", api_key=KEY, check_embedding_ctx_length=False
    ).embed_documents(["one", "two"])
    return {"sizes": [len(each) for each in vectors]}


tell(*chat_cases(model), responses, embeddings)
