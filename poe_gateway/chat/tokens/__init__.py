"""Tokens, counted here: by a tokenizer that carries its vocabulary and asks nobody."""

from poe_gateway.chat.tokens.counting import answer_tokens as answer_tokens
from poe_gateway.chat.tokens.counting import prompt_tokens as prompt_tokens
from poe_gateway.chat.tokens.tokenizer import Tokenizer as Tokenizer
