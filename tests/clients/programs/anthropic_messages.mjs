// The `@anthropic-ai/sdk` package.
import Anthropic from "@anthropic-ai/sdk";
import { KEY, MODEL, URL, tell } from "./telling.mjs";

const client = new Anthropic({ baseURL: URL, apiKey: KEY, maxRetries: 0 });
const weather = {
  name: "get_weather",
  description: "The weather of a city.",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const asked = [{ role: "user", content: "What is the weather in Paris?" }];
const callsOf = (message) => message.content.filter((block) => block.type === "tool_use");
const common = { model: MODEL, max_tokens: 1024 };

await tell({
  async text() {
    const message = await client.messages.create({ ...common, messages: [{ role: "user", content: "Say hello." }] });
    return {
      text: message.content[0].text,
      finish: message.stop_reason,
      tokens: message.usage.input_tokens + message.usage.output_tokens,
    };
  },

  async stream() {
    const pieces = [];
    const said = [{ role: "user", content: "Say hello, and say it slowly." }];
    const stream = client.messages.stream({ ...common, messages: said }).on("text", (piece) => pieces.push(piece));
    const message = await stream.finalMessage();
    return { text: pieces.join(""), pieces: pieces.length, finish: message.stop_reason };
  },

  async tools() {
    const first = await client.messages.create({ ...common, messages: asked, tools: [weather] });
    const results = callsOf(first).map(({ id }) => ({ type: "tool_result", tool_use_id: id, content: "18 degrees" }));
    const turns = [...asked, { role: "assistant", content: first.content }, { role: "user", content: results }];
    const second = await client.messages.create({ ...common, messages: turns, tools: [weather] });
    return {
      calls: callsOf(first).map(({ name, input }) => [name, input]),
      finish: first.stop_reason,
      text: second.content[0].text,
    };
  },

  async streamed_tools() {
    let deltas = false;
    const stream = client.messages.stream({ ...common, messages: asked, tools: [weather] });
    stream.on("inputJson", () => (deltas = true));
    const message = await stream.finalMessage();
    return { calls: callsOf(message).map(({ name, input }) => [name, input]), finish: message.stop_reason, deltas };
  },

  async count_tokens() {
    const counted = await client.messages.countTokens({ model: MODEL, messages: [{ role: "user", content: "Say hello." }] });
    return { tokens: counted.input_tokens };
  },
});
