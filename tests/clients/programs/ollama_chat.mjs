// The `ollama` package.
import { Ollama } from "ollama";
import { KEY, MODEL, URL, tell } from "./telling.mjs";

const client = new Ollama({ host: URL, headers: { Authorization: `Bearer ${KEY}` } });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", description: "The weather of a city.", parameters } }];
const asked = [{ role: "user", content: "What is the weather in Paris?" }];
const slowly = [{ role: "user", content: "Say hello, and say it slowly." }];

await tell({
  async models() {
    const { models } = await client.list();
    return { served: models.some(({ model }) => model.replace(/:latest$/, "") === MODEL) };
  },

  async text() {
    const answer = await client.chat({ model: MODEL, messages: [{ role: "user", content: "Say hello." }] });
    return { text: answer.message.content, finish: answer.done_reason };
  },

  async stream() {
    const pieces = [];
    for await (const part of await client.chat({ model: MODEL, messages: slowly, stream: true })) {
      if (part.message.content) pieces.push(part.message.content);
    }
    return { text: pieces.join(""), pieces: pieces.length };
  },

  async generate() {
    return { text: (await client.generate({ model: MODEL, prompt: "Say hello." })).response };
  },

  async tools() {
    const first = (await client.chat({ model: MODEL, messages: asked, tools })).message;
    const calls = first.tool_calls.map((call) => call.function);
    const results = calls.map(({ name }) => ({ role: "tool", tool_name: name, content: "18 degrees" }));
    const second = await client.chat({ model: MODEL, messages: [...asked, first, ...results], tools });
    return { calls: calls.map((call) => [call.name, call.arguments]), text: second.message.content };
  },

  async embeddings() {
    const { embeddings } = await client.embed({ model: MODEL, input: ["one", "two"] });
    return { sizes: embeddings.map((each) => each.length) };
  },
});
