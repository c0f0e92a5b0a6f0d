"""Tools and forms of answers for models that only chat: what is told, what is read back, what may be shown when."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poe_gateway.chat.emulation import calls, turns
from poe_gateway.chat.emulation.plan import Emulation, Offer
from poe_gateway.chat.emulation.reader import Ending, Reader
from poe_gateway.chat.events import ChatEvent, Finished, RefusalDelta, TextDelta, TextReplaced, ToolCallDelta
from poe_gateway.chat.request import ImagePart, Message, OutputFormat, TextPart, ToolCall, ToolChoice
from tests.unit.emulating import CITY, CUTS, NOW, WEATHER, asking, pieces, shown

IDS = "call_{}".format
TOOLS = Emulation(offer=Offer(tools=(WEATHER, NOW)))
MUST = Emulation(offer=Offer(tools=(WEATHER, NOW), mode="required"))
JSON = Emulation(output=OutputFormat(kind="json_object"))
FORM = Emulation(output=OutputFormat(kind="json_schema", schema=CITY))
PARIS = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
ROME = '{"name": "get_weather", "arguments": {"city": "Rome"}}'
CALL = f"<tool_call>{PARIS}</tool_call>"


def read(
    emulation: Emulation, *events: ChatEvent | str, reason: Any = "stop", again: bool = False, earlier: bool = False
) -> tuple[list[ChatEvent], Ending]:
    reader = Reader(emulation, IDS, again=again, shown=earlier)
    seen: list[ChatEvent] = []
    for event in events:
        seen.extend(reader.take(TextDelta(event) if isinstance(event, str) else event))
    return seen, reader.end(Finished(reason))


def made(ending: Ending) -> list[tuple[str, Any]]:
    functions = [
        call["function"] for event in ending.events if isinstance(event, ToolCallDelta) for call in event.calls
    ]
    return [(function["name"], orjson.loads(function["arguments"])) for function in functions]


GET = "get_weather"
CALLS: dict[str, tuple[str, str, list[tuple[str, Any]]]] = {
    "alone": (CALL, "", [(GET, {"city": "Paris"})]),
    "after words": (f"Let me look.\n\n{CALL}", "Let me look.", [(GET, {"city": "Paris"})]),
    "before words": (f"{CALL}\n\nIt is sunny in Paris.", "", [(GET, {"city": "Paris"})]),
    "two": (
        f"{CALL}\n<tool_call>{ROME}</tool_call>",
        "",
        [(GET, {"city": "Paris"}), (GET, {"city": "Rome"})],
    ),
    "a list in one": (
        f"<tool_call>[{PARIS}, {ROME}]</tool_call>",
        "",
        [(GET, {"city": "Paris"}), (GET, {"city": "Rome"})],
    ),
    "in a code block": (f"Sure:\n```xml\n{CALL}\n```\n", "Sure:", [(GET, {"city": "Paris"})]),
    "with a code block inside": (f"<tool_call>\n```json\n{PARIS}\n```\n</tool_call>", "", [(GET, {"city": "Paris"})]),
    "over lines": (f"<tool_call>\n{PARIS}\n</tool_call>", "", [(GET, {"city": "Paris"})]),
    "without an end": (f"<tool_call>{PARIS}", "", [(GET, {"city": "Paris"})]),
    "with its end inside": (
        '<tool_call>{"name": "get_weather", "arguments": {"city": "</tool_call>"}}</tool_call>',
        "",
        [(GET, {"city": "</tool_call>"})],
    ),
    "arguments as text": (
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
        "",
        [(GET, {"city": "Paris"})],
    ),
    "parameters": (CALL.replace("arguments", "parameters"), "", [(GET, {"city": "Paris"})]),
    "no arguments": ('<tool_call>{"name": "now"}</tool_call>', "", [("now", {})]),
    "arguments null": ('<tool_call>{"name": "now", "arguments": null}</tool_call>', "", [("now", {})]),
    "without tags": (PARIS, "", [(GET, {"city": "Paris"})]),
    "a code block without tags": (f"```json\n{PARIS}\n```", "", [(GET, {"city": "Paris"})]),
    "a list without tags": (f"[{PARIS},{ROME}]", "", [(GET, {"city": "Paris"}), (GET, {"city": "Rome"})]),
    "words": ("It is sunny.", "It is sunny.", []),
    "JSON that is an answer": ('{"name": "Paris", "arguments": 3}', '{"name": "Paris", "arguments": 3}', []),
    "JSON with a tool's name": ('{"name": "now"}', '{"name": "now"}', []),
    "code": ("```python\nprint(1 < 2)\n```", "```python\nprint(1 < 2)\n```", []),
    "an end without a beginning": ("Fine.</tool_call>", "Fine.", []),
    "half a tag": ("Fine. <tool_ca", "Fine.", []),
    "less than": ("1 <t", "1 <t", []),
}


@pytest.mark.parametrize(("answer", "text", "expected"), CALLS.values(), ids=CALLS)
def test_calls_are_found(answer: str, text: str, expected: list[tuple[str, Any]]) -> None:
    seen, ending = read(TOOLS, answer)
    assert ending.problem == "" and made(ending) == expected
    assert shown([*seen, *ending.events]).rstrip("\n") == text
    assert ending.finished == Finished("tool_calls" if expected else "stop")


@given(answer=st.sampled_from([case[0] for case in CALLS.values()]), cuts=CUTS)
def test_however_an_answer_is_cut_into_pieces_it_is_the_same(answer: str, cuts: list[int]) -> None:
    _same_in_pieces(TOOLS, answer, cuts)


_ALPHABET = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        "<",
        "tool",
        "_call>",
        "`",
        "```",
        "```json\n",
        "\n",
        " ",
        "{",
        "}",
        '"name": ',
        PARIS,
        "x",
    ]
)


@given(answer=st.lists(_ALPHABET, max_size=14).map("".join), cuts=CUTS, reason=st.sampled_from(["stop", "length"]))
@example(answer="<tool<tool_call>_call>", cuts=[], reason="stop")
@example(answer=" " * 200 + PARIS, cuts=[100], reason="stop")
@example(answer=" " * 600 + PARIS, cuts=[100, 550], reason="stop")
@example(answer="``````xml\n<tool_call>", cuts=[3, 6], reason="stop")
def test_no_tag_is_ever_shown(answer: str, cuts: list[int], reason: str) -> None:
    for emulation in (TOOLS, MUST):
        for events in _same_in_pieces(emulation, answer, cuts, reason):
            text = shown(events)
            assert "<tool_call>" not in text and "</tool_call>" not in text


def _same_in_pieces(emulation: Emulation, answer: str, cuts: list[int], reason: str = "stop") -> list[list[ChatEvent]]:
    seen_whole, whole = read(emulation, answer, reason=reason)
    seen, ending = read(emulation, *pieces(answer, cuts), reason=reason)
    assert (ending.problem, ending.finished, made(ending)) == (whole.problem, whole.finished, made(whole))
    assert shown([*seen, *ending.events]) == shown([*seen_whole, *whole.events])
    assert not any(isinstance(event, TextReplaced) for event in seen)
    return [seen, seen_whole, [*seen, *ending.events]]


@given(words=st.text(alphabet="ab <`\n", max_size=60), cuts=CUTS)
def test_words_pass_at_once_but_for_what_may_begin_a_call(words: str, cuts: list[int]) -> None:
    reader = Reader(TOOLS, IDS)
    text = "Well, " + words
    seen, said = "", ""
    for piece in pieces(text, cuts):
        said += piece
        seen += shown(reader.take(TextDelta(piece)))
        held = said[len(seen) :]
        assert said.startswith(seen) and (len(seen) > 0 or len(said) < 2)
        assert held == "" or held[0] in " \n`<"
    assert seen + shown(reader.end(Finished()).events) == text


PROBLEMS: dict[str, tuple[Emulation, str, str]] = {
    "no JSON": (TOOLS, '<tool_call>{"name": "now", </tool_call>', "is no JSON object"),
    "nothing": (TOOLS, "<tool_call></tool_call>", "is no JSON object"),
    "no name": (TOOLS, '<tool_call>{"tool": "now"}</tool_call>', 'with "name" and "arguments"'),
    "a name that is none": (TOOLS, '<tool_call>{"name": 3}</tool_call>', 'with "name" and "arguments"'),
    "no object": (TOOLS, "<tool_call>17</tool_call>", "must be a JSON object"),
    "unknown tool": (TOOLS, '<tool_call>{"name": "fly"}</tool_call>', 'possible: "get_weather", "now"'),
    "arguments that are a list": (
        TOOLS,
        '<tool_call>{"name": "now", "arguments": []}</tool_call>',
        "must be a JSON object",
    ),
    "arguments that are no JSON": (TOOLS, '<tool_call>{"name": "now", "arguments": "x"}</tool_call>', "are no JSON"),
    "not by the schema": (TOOLS, '<tool_call>{"name": "get_weather"}</tool_call>', "'city' is a required property"),
    "more than the schema": (TOOLS, CALL.replace('"Paris"', '"Paris", "x": 1'), "the property 'x' is not allowed"),
    "NaN": (TOOLS, CALL.replace('"Paris"', "NaN"), "NaN is not JSON"),
    "a number beyond all": (TOOLS, CALL.replace('"Paris"', "1e999"), "is too large"),
    "digits without end": (TOOLS, CALL.replace('"Paris"', "9" * 5000), "no JSON object"),
    "nested without end": (TOOLS, "<tool_call>" + "[" * 100_000, "nested too deeply"),
    "nested too often": (TOOLS, CALL.replace('"Paris"', "[" * 101 + "]" * 101), "nested too deeply"),
    "one good, one bad": (TOOLS, CALL + '<tool_call>{"name": "fly"}</tool_call>', '"fly" cannot be called'),
    "no call where one must be": (MUST, "It is sunny.", "does not call a tool"),
    "the wrong tool": (
        Emulation(offer=Offer(tools=(WEATHER, NOW), mode="required", name="now")),
        CALL,
        '"get_weather" cannot be called now; possible: "now"',
    ),
    "a call where none may be": (Emulation(offer=Offer(mode="none")), CALL, "no tool may be called now"),
    "words instead of JSON": (JSON, "It is sunny.", "is no JSON"),
    "a list instead of an object": (JSON, "[1]", "must be a JSON object"),
    "JSON not by its schema": (FORM, '{"city": 3}', "$.city: 3 is not of type 'string'"),
}


@pytest.mark.parametrize(("emulation", "answer", "problem"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_cannot_be_used_is_told_apart_and_stands_without_tags(
    emulation: Emulation, answer: str, problem: str
) -> None:
    seen, ending = read(emulation, answer)
    assert problem in ending.problem and len(ending.problem) < 1500
    assert ending.finished == Finished("stop") and made(ending) == []
    assert "tool_call>" not in shown([*seen, *ending.events])


OUTPUTS: dict[str, tuple[Emulation, str, str]] = {
    "bare": (JSON, ' {"a": 1}\n', '{"a": 1}'),
    "in a code block": (JSON, 'Here:\n```json\n{"a": 1}\n```\nDone.', '{"a": 1}'),
    "between words": (JSON, 'The answer [1] is {"a": {"b": "}"}}, as {you} see.', '{"a": {"b": "}"}}'),
    "the one that fits": (FORM, 'Not {"town": "x"} but {"city": "Paris"}', '{"city": "Paris"}'),
    "as it was written": (
        JSON,
        '{"a": 1.10, "b": 12345678901234567890123}',
        '{"a": 1.10, "b": 12345678901234567890123}',
    ),
    "half a surrogate pair": (JSON, '{"a": "\ud800"}', '{"a": "\\ud800"}'),
    "a schema for lists": (
        Emulation(output=OutputFormat(kind="json_schema", schema={"type": "array"})),
        "Here: [1, 2]",
        "[1, 2]",
    ),
}


@pytest.mark.parametrize(("emulation", "answer", "expected"), OUTPUTS.values(), ids=OUTPUTS)
def test_json_is_found_in_the_answer(emulation: Emulation, answer: str, expected: str) -> None:
    seen, ending = read(emulation, answer)
    assert seen == [] and ending.problem == ""
    assert shown(ending.events) == expected


def test_with_a_form_and_tools_a_call_needs_no_form() -> None:
    both = Emulation(offer=TOOLS.offer, output=FORM.output)
    assert made(read(both, CALL)[1]) == [(GET, {"city": "Paris"})]
    assert shown(read(both, 'So: {"city": "Paris"}')[1].events) == '{"city": "Paris"}'
    assert "is no JSON" in read(both, "It is sunny.")[1].problem


def test_only_the_first_call_counts_where_there_may_be_one() -> None:
    one = Emulation(offer=Offer(tools=(WEATHER,), parallel=False))
    assert made(read(one, f"{CALL}<tool_call>{ROME}</tool_call>")[1]) == [(GET, {"city": "Paris"})]


def test_calls_are_told_in_openais_shape() -> None:
    _, ending = read(TOOLS, f"{CALL}<tool_call>{ROME}</tool_call>")
    fragments = [call for event in ending.events if isinstance(event, ToolCallDelta) for call in event.calls]
    assert fragments == [
        {"index": 0, "id": "call_0", "type": "function", "function": {"name": GET, "arguments": '{"city": "Paris"}'}},
        {"index": 1, "id": "call_1", "type": "function", "function": {"name": GET, "arguments": '{"city": "Rome"}'}},
    ]


def test_arguments_can_always_be_sent() -> None:
    for city in ("Zürich", "\\ud800", "𝒳"):
        _, ending = read(TOOLS, CALL.replace("Paris", city))
        assert orjson.dumps([event.calls for event in ending.events if isinstance(event, ToolCallDelta)])


def test_a_limit_that_breaks_an_answer_is_no_fault_of_the_model() -> None:
    seen, ending = read(TOOLS, f'Look. {CALL}<tool_call>{{"name": "ge', reason="length")
    assert (ending.problem, ending.finished) == ("", Finished("length"))
    assert made(ending) == [(GET, {"city": "Paris"})] and shown(seen) == "Look."
    seen, ending = read(MUST, "It is sun", reason="length")
    assert (ending.problem, shown(ending.events), ending.finished) == ("", "It is sun", Finished("length"))
    seen, ending = read(FORM, '{"city": "Par', reason="length")
    assert (ending.problem, shown(ending.events), ending.finished) == ("", '{"city": "Par', Finished("length"))


def test_what_the_upstream_itself_calls_or_refuses_is_not_read() -> None:
    call = ToolCallDelta(({"index": 0, "id": "x", "type": "function", "function": {"name": "a", "arguments": "{}"}},))
    seen, ending = read(FORM, "Let me see.", call, reason="tool_calls")
    assert (seen, ending.problem, ending.finished) == ([call], "", Finished("tool_calls"))
    assert shown(ending.events) == "Let me see."
    assert read(FORM, RefusalDelta("No."))[1].problem == ""
    assert read(FORM, "I can", reason="content_filter")[1] == Ending(
        events=(TextDelta("I can"),), finished=Finished("content_filter")
    )


REPLACED: dict[str, tuple[list[ChatEvent | str], str, int]] = {
    "words by words": (["Let me think", TextReplaced("It is sunny."), " Really."], "It is sunny. Really.", 0),
    "words by a call": (["Let me think", TextReplaced(CALL)], "", 1),
    "a call by words": ([f"Well. {CALL}", TextReplaced("It is sunny.")], "It is sunny.", 0),
    "half a call by words": (["<tool_c", TextReplaced("It is sunny.")], "It is sunny.", 0),
    "a bare call by words": ([PARIS[:20], TextReplaced("It is sunny.")], "It is sunny.", 0),
    "words by words and a call": (["Hm", TextReplaced("Let me look. "), CALL], "Let me look.", 1),
    "at the very beginning": ([TextReplaced("It is "), "sunny."], "It is sunny.", 0),
}


@pytest.mark.parametrize(("events", "text", "count"), REPLACED.values(), ids=REPLACED)
def test_a_text_that_is_replaced_was_never_there(events: list[ChatEvent | str], text: str, count: int) -> None:
    seen, ending = read(TOOLS, *events)
    assert shown([*seen, *ending.events]) == text and len(made(ending)) == count


def test_after_a_call_was_replaced_words_pass_at_once_again() -> None:
    seen, _ = read(TOOLS, f"Well. {CALL}", TextReplaced("It is "), "sunny.")
    assert seen == [TextDelta("Well."), TextReplaced("It is"), TextDelta(" sunny.")]


def test_after_some_calls_that_cannot_be_read_no_more_are_looked_for() -> None:
    assert len(calls.read("<tool_call>{" * 1000, Offer(tools=(NOW,))).problems) == 16


def test_a_second_try_shows_nothing_before_its_end_and_replaces_what_was_shown() -> None:
    seen, ending = read(TOOLS, "It is ", "sunny.", again=True, earlier=True)
    assert (seen, ending.events) == ([], (TextReplaced("It is sunny."),))
    seen, ending = read(TOOLS, f"Now right: {CALL}", again=True, earlier=True)
    assert seen == [] and [type(event) for event in ending.events] == [ToolCallDelta]
    seen, ending = read(TOOLS, f"Now right: {CALL}", again=True)
    assert seen == [] and shown(ending.events) == "Now right:" and len(made(ending)) == 1


def test_logprobs_stay_with_words_that_pass_whole() -> None:
    event = TextDelta("sunny", logprobs=({"token": "sunny"},))
    assert read(TOOLS, event)[0] == [event]


def test_an_answer_that_may_be_a_call_is_known_by_its_beginning() -> None:
    assert [calls.is_bare(text) for text in ("", "  ", "`", "```js", '```json\n[ {"na', '{"name" : "')] == [
        None
    ] * 5 + [True]
    assert [calls.is_bare(text) for text in ("a", "{}", '{"names', "```python\nx", "``x", " " * 600)] == [False] * 6


# ---------------------------------------------------------------- what is told


def _turns(*messages: Message | str, emulation: Emulation = TOOLS) -> list[tuple[str, str]]:
    return [(each.role, each.text) for each in turns.asked(asking(*messages), emulation).messages]


def test_instructions_stand_after_the_callers_own() -> None:
    told = _turns(Message("system", (TextPart("Be short."),)), "Hello?")
    assert [role for role, _ in told] == ["system", "system", "user"] and told[0][1] == "Be short."
    instructions = told[1][1]
    assert (
        "- get_weather: The weather.\n  JSON schema of its arguments: "
        + orjson.dumps(CITY).decode().replace(":", ": ").replace(",", ", ")
        in instructions
    )
    assert "- now\n" in instructions and "several tools at once" in instructions


CHOICES: dict[str, tuple[Offer, str, str]] = {
    "auto": (Offer(tools=(WEATHER, NOW)), "Call a tool only where it is needed", "must call"),
    "required": (Offer(tools=(WEATHER, NOW), mode="required"), "You must call a tool now", "only where it is needed"),
    "named": (Offer(tools=(WEATHER, NOW), mode="required", name="now"), 'You must call the tool "now"', "get_weather"),
    "one": (Offer(tools=(WEATHER,), parallel=False), "at most one call", "several tools at once"),
    "none": (Offer(mode="none"), "Do not call any now", "can call these tools"),
}


@pytest.mark.parametrize(("offer", "said", "unsaid"), CHOICES.values(), ids=CHOICES)
def test_whether_tools_are_to_be_called_is_told(offer: Offer, said: str, unsaid: str) -> None:
    instructions = _turns("Hello?", emulation=Emulation(offer=offer))[0][1]
    assert said in instructions and unsaid not in instructions


def test_the_request_that_is_sent_asks_for_nothing_emulated() -> None:
    request = asking(
        tools=(WEATHER,), tool_choice=ToolChoice(), parallel_tool_calls=True, output=OutputFormat(kind="json_object")
    )
    asked = turns.asked(request, Emulation(offer=TOOLS.offer, output=request.output))
    assert (asked.tools, asked.tool_choice, asked.parallel_tool_calls, asked.output) == ((), None, None, None)
    only_tools = turns.asked(request, TOOLS)
    assert only_tools.output is request.output
    assert turns.asked(request, Emulation(stop=("x",))) is request


def test_earlier_calls_and_results_are_written_in_the_same_form_and_order() -> None:
    picture = ImagePart("https://example.test/a.png")
    calls_made = (ToolCall("a", GET, '{"city": "Paris"}'), ToolCall("b", GET, "not JSON"))
    told = turns.asked(
        asking(
            "Weather?",
            Message("assistant", (TextPart("Let me look."),), tool_calls=calls_made),
            Message("tool", (TextPart("rain"),), tool_call_id="b"),
            Message("tool", (TextPart("see "), picture, TextPart("sun </tool_result> x")), tool_call_id="a"),
            "And now?",
        ),
        TOOLS,
    ).messages[1:]
    assert [message.role for message in told] == ["user", "assistant", "user", "user"]
    assert told[1].text == (
        f'Let me look.\n{CALL}\n<tool_call>{{"name": "get_weather", "arguments": "not JSON"}}</tool_call>'
    )
    assert told[1].tool_calls == ()
    assert told[2].text == (
        '<tool_result call="1" tool="get_weather">\nsee sun <\\/tool_result> x\n</tool_result>\n'
        '<tool_result call="2" tool="get_weather">\nrain\n</tool_result>'
    )
    assert told[2].parts[2] is picture and told[2].tool_call_id is None


def test_a_result_without_its_call_knows_its_place_by_its_id() -> None:
    ids = [turns.call_id(asking("Weather?"), "req_1", place) for place in (0, 1)]
    results = [
        Message("tool", (TextPart(text),), tool_call_id=call) for call, text in zip(reversed(ids), "ba", strict=True)
    ]
    told = _turns(*results)
    assert told[1] == ("user", '<tool_result call="1">\na\n</tool_result>\n<tool_result call="2">\nb\n</tool_result>')
    assert _turns(Message("tool", (TextPart("x"),), tool_call_id="other", name="now"))[1] == (
        "user",
        '<tool_result call="1" tool="now">\nx\n</tool_result>',
    )


def test_ids_are_the_same_for_the_same_request_only() -> None:
    one, other = asking("Weather?"), asking("Time?")
    assert turns.call_id(one, "r", 0) == turns.call_id(one, "r", 0)
    assert len({turns.call_id(request, salt, 0) for request in (one, other) for salt in ("", "r")}) == 3
    assert len({turns.call_id(one, salt, place) for salt in ("r", "s") for place in (0, 1)}) == 4


def test_a_correction_goes_on_where_the_conversation_is_kept() -> None:
    asked = turns.asked(asking("Weather?"), TOOLS)
    whole = turns.corrected(asked, "<tool_call>", "it is bad", TOOLS, goes_on=False)
    assert whole.messages[:-2] == asked.messages
    assert [message.role for message in whole.messages[-2:]] == ["assistant", "user"]
    assert "it is bad" in whole.messages[-1].text
    assert turns.corrected(asked, "x", "it is bad", TOOLS, goes_on=True).messages == whole.messages[-1:]
    assert turns.corrected(asked, " ", "it is bad", TOOLS, goes_on=False).messages[-2].role == "user"
