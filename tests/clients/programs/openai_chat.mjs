// The `openai` package: chat completions, the Responses API, embeddings and images.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { KEY, MODEL, URL, tell } from "./telling.mjs";

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: KEY, maxRetries: 0 });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const weather = { type: "function", function: { name: "get_weather", description: "The weather of a city.", parameters } };
const asked = [{ role: "user", content: "What is the weather in Paris?" }];
const calledIn = (message) => message.tool_calls.map(({ function: f }) => [f.name, JSON.parse(f.arguments)]);

await tell({
  async text() {
    const messages = [{ role: "user", content: "Say hello." }];
    const { data, response } = await client.chat.completions.create({ model: MODEL, messages }).withResponse();
    const [choice] = data.choices;
    return {
      text: choice.message.content,
      finish: choice.finish_reason,
      tokens: data.usage.total_tokens,
      emulated: response.headers.get("x-gateway-emulated"),
    };
  },

  async stream() {
    const pieces = [];
    let finish = null;
    let tokens = null;
    const messages = [{ role: "user", content: "Say hello, and say it slowly." }];
    const options = { stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await client.chat.completions.create({ model: MODEL, messages, ...options })) {
      pieces.push(...chunk.choices.map((choice) => choice.delta.content).filter(Boolean));
      finish = chunk.choices[0]?.finish_reason ?? finish;
      tokens = chunk.usage?.total_tokens ?? tokens;
    }
    return { text: pieces.join(""), pieces: pieces.length, finish, tokens };
  },

  async tools() {
    const called = [];
    const runner = client.chat.completions.runTools({
      model: MODEL,
      messages: asked,
      tools: [
        {
          type: "function",
          function: {
            ...weather.function,
            parse: JSON.parse,
            function: ({ city }) => {
              called.push(["get_weather", { city }]);
              return "18 degrees";
            },
          },
        },
      ],
    });
    const text = await runner.finalContent();
    return { calls: called, text };
  },

  async streamed_tools() {
    const stream = client.chat.completions.stream({ model: MODEL, messages: asked, tools: [weather] });
    let deltas = false;
    stream.on("tool_calls.function.arguments.delta", () => (deltas = true));
    const [choice] = (await stream.finalChatCompletion()).choices;
    return { calls: calledIn(choice.message), finish: choice.finish_reason, deltas };
  },

  async structured() {
    const form = zodResponseFormat(z.object({ city: z.string() }), "place");
    const messages = [{ role: "user", content: "Name a city by the sea." }];
    const answer = await client.chat.completions.parse({ model: MODEL, messages, response_format: form });
    return { city: answer.choices[0].message.parsed.city };
  },

  async responses() {
    const first = await client.responses.create({ model: MODEL, input: "My name is Ada.", store: true });
    const second = await client.responses.create({ model: MODEL, input: "Say hello.", previous_response_id: first.id });
    const kept = await client.responses.retrieve(first.id);
    await client.responses.delete(first.id);
    return { text: second.output_text, before: second.previous_response_id === first.id, same: kept.id === first.id };
  },

  async streamed_responses() {
    const stream = client.responses.stream({ model: MODEL, input: "Say hello, and say it slowly." });
    const pieces = [];
    stream.on("response.output_text.delta", (event) => pieces.push(event.delta));
    const answer = await stream.finalResponse();
    return { text: answer.output_text, same: pieces.join("") === answer.output_text, status: answer.status };
  },

  async responses_tools() {
    const tools = [{ type: "function", name: "get_weather", description: "The weather of a city.", parameters, strict: false }];
    const first = await client.responses.create({ model: MODEL, input: asked, tools });
    const calls = first.output.filter((item) => item.type === "function_call");
    const outputs = calls.map(({ call_id }) => ({ type: "function_call_output", call_id, output: "18 degrees" }));
    const second = await client.responses.create({ model: MODEL, input: [...asked, ...first.output, ...outputs], tools });
    return { calls: calls.map((call) => [call.name, JSON.parse(call.arguments)]), text: second.output_text };
  },

  async embeddings() {
    const answer = await client.embeddings.create({ model: MODEL, input: ["one", "two"] });
    return { sizes: answer.data.map((each) => each.embedding.length) };
  },

  async images() {
    const answer = await client.images.generate({ model: MODEL, prompt: "A red dot", response_format: "b64_json" });
    return { bytes: Buffer.from(answer.data[0].b64_json, "base64").length > 0, count: answer.data.length };
  },

  async refused() {
    try {
      await client.chat.completions.create({ model: MODEL, messages: asked, n: 2 });
    } catch (error) {
      return { status: error.status, param: error.param, request_id: Boolean(error.requestID) };
    }
    return {};
  },
});
