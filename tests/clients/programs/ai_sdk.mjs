// Vercel's AI SDK with its provider for OpenAI-compatible addresses.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { KEY, MODEL, URL, tell } from "./telling.mjs";

const gateway = createOpenAICompatible({
  name: "gateway",
  baseURL: `${URL}/v1`,
  apiKey: KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = gateway(MODEL);
const tools = {
  get_weather: tool({
    description: "The weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async () => "18 degrees",
  }),
};
const options = { model, maxRetries: 0 };
const loop = { ...options, tools, stopWhen: stepCountIs(3), prompt: "What is the weather in Paris?" };
const callsOf = (steps) => steps.flatMap((step) => step.toolCalls).map((call) => [call.toolName, call.input]);

await tell({
  async text() {
    const { text, finishReason, usage } = await generateText({ ...options, prompt: "Say hello." });
    return { text, finish: finishReason, tokens: usage.totalTokens };
  },

  async stream() {
    const result = streamText({ ...options, prompt: "Say hello, and say it slowly." });
    const pieces = [];
    for await (const piece of result.textStream) pieces.push(piece);
    const { totalTokens } = await result.usage;
    return { text: pieces.join(""), pieces: pieces.length, finish: await result.finishReason, tokens: totalTokens };
  },

  async tools() {
    const { text, steps } = await generateText(loop);
    return { calls: callsOf(steps), text, steps: steps.length };
  },

  async streamed_tools() {
    const result = streamText(loop);
    await result.consumeStream();
    return { calls: callsOf(await result.steps), text: await result.text };
  },

  async structured() {
    const { object } = await generateObject({ ...options, schema: z.object({ city: z.string() }), prompt: "Name a city by the sea." });
    return { city: object.city };
  },

  async embeddings() {
    const { embeddings } = await embedMany({ model: gateway.textEmbeddingModel(MODEL), values: ["one", "two"] });
    return { sizes: embeddings.map((each) => each.length) };
  },

  async missing() {
    try {
      await generateText({ model: gateway("no-such-model"), maxRetries: 0, prompt: "hi" });
    } catch (error) {
      return { status: error.statusCode, told: error.message.includes("no-such-model") };
    }
    return {};
  },
});
