// What OpenAI's official client for Node gets from a server: node openai_client.mjs URL KEY RECORDING
import fs from "node:fs";
import OpenAI from "openai";

const [url, apiKey, recording] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey, maxRetries: 0 });
const said = {};

said.models = (await client.models.list()).data.map((model) => model.id);
said.transcript = (
  await client.audio.transcriptions.create({ model: "whisper-1", file: fs.createReadStream(recording), language: "en" })
).text;
const transcripts = await client.audio.transcriptions.create({
  model: "gpt-4o-mini-transcribe",
  file: fs.createReadStream(recording),
  stream: true,
});
for await (const event of transcripts) if (event.type === "transcript.text.done") said.streamed = event.text;

said.voice = await client.audio.voices.create({
  name: "Node's",
  audio_sample: fs.createReadStream(recording),
  consent: "cons_1234",
});
const speech = await client.audio.speech.create({ model: "tts-1", input: "Hello there, my friend.", voice: said.voice.id });
const mp3 = Buffer.from(await speech.arrayBuffer());
said.voiceOfSpeech = speech.headers.get("x-mirrorchat-voice");
said.mp3 = mp3.subarray(0, 16).toString("base64");
const pcm = await client.audio.speech.create({
  model: "gpt-4o-mini-tts",
  input: "Hello there, my friend.",
  voice: { id: said.voice.id },
  response_format: "pcm",
  speed: 1.25,
});
said.speechBytes = (await pcm.arrayBuffer()).byteLength;
said.deleted = (await client.audio.voices.delete(said.voice.id)).deleted;

const chat = await client.chat.completions.create({
  model: "mirrorchat",
  messages: [{ role: "user", content: "Hello?" }],
  stream: true,
});
said.chat = "";
for await (const chunk of chat) said.chat += chunk.choices[0]?.delta?.content ?? "";

try {
  await client.audio.speech.create({ model: "tts-1", input: "Hello.", voice: said.voice.id });
} catch (error) {
  said.error = { status: error.status, code: error.code, requestId: error.requestID };
}
console.log(JSON.stringify(said));
