// The same as flow.py with the Node client: node flow.mjs http://127.0.0.1:8010/v1 [KEY] [TEACHER]
// The client is looked for as usual, from the folder in which this file stands upwards.
import OpenAI, { toFile } from "openai";
import { VERSION } from "openai/version";

const WORDS = { good: ["lovely", "splendid", "kind"], bad: ["dreadful", "rude", "dull"], "so-so": ["plain", "usual", "fair"] };
const THINGS = ["film", "meal", "walk", "talk", "book", "song", "room", "view", "tea", "day", "chair", "shop", "train"];
const WITHIN_MS = 900_000;

function check(holds, what) {
  if (!holds) throw new Error(`not as expected: ${JSON.stringify(what)}`);
}

async function all(pages) {
  const found = [];
  for await (const one of pages) found.push(one);
  return found;
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function trainingRows() {
  const lines = [];
  for (const [answer, words] of Object.entries(WORDS))
    for (const word of words)
      for (const thing of THINGS) {
        const messages = [{ role: "user", content: `In the end the ${thing} was rather ${word}.` }, { role: "assistant", content: answer }];
        lines.push(JSON.stringify({ messages }));
      }
  return lines.join("\n") + "\n";
}

async function jobOf(client, fileId) {
  const jobs = client.fineTuning.jobs;
  let job = await jobs.create({
    model: "small-text-classifier", training_file: fileId, suffix: "node", metadata: { "made by": "node" },
    method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 60, batch_size: 16 } } }, distillation: { seeds: 1 },
  });
  check(job.status === "validating_files", job);
  job = await jobs.pause(job.id);
  while (job.status !== "paused") {
    await pause(200);
    job = await jobs.retrieve(job.id);
  }
  job = await jobs.resume(job.id);
  const ends = Date.now() + WITHIN_MS;
  while (!["succeeded", "failed", "cancelled"].includes(job.status) && Date.now() < ends) {
    await pause(500);
    job = await jobs.retrieve(job.id);
  }
  check(job.status === "succeeded", job);
  check(job.method.type === "supervised" && job.distillation.phases.training.done > 0, job);
  return job;
}

// Estimated, then cancelled; flow.py says what each is.
function heldOnes(teacher, fileId) {
  const net = { kind: "mlp", hidden: [8] };
  const recipe = {
    name: "digits", questions: { kind: "dataset", source: "builtin:digits" }, seeds: 1,
    teacher: { kind: "trained", model: net, epochs: 1 }, student: { kind: "fresh", model: net },
    objectives: [{ kind: "soft_target", temperature: 2 }], training: { epochs: 1 }, evaluation: { metrics: ["accuracy", "agreement"] },
  };
  const found = { recipe: { recipe, hold: true } };
  if (!teacher) return found;
  const budget = { usd: 1.5, teacher_tokens: 100_000, calls: 500, minutes: 30 };
  const whole = { teacher, student: "small-text-classifier", budget, seeds: 2, hold: true };
  found.file = { ...whole, source: { file: fileId }, soft_targets: true, labels: Object.keys(WORDS) };
  found.stored = { ...whole, source: { stored_completions: { metadata: { run: fileId } } } };
  return found;
}

async function held(client, fileId, teacher) {
  const { jobs } = client.fineTuning;
  const { completions } = client.chat;
  const lines = teacher ? trainingRows().trim().split("\n").filter((_, place) => place % 6 === 0) : [];
  for (const line of lines) {
    const messages = JSON.parse(line).messages.slice(0, 1);
    await completions.create({ model: teacher, messages, store: true, metadata: { run: fileId } });
  }
  for (const [name, distillation] of Object.entries(heldOnes(teacher, fileId))) {
    const training_file = name === "file" ? fileId : "none";
    let job = await jobs.create({ model: "small-text-classifier", training_file, suffix: name, distillation });
    const ends = Date.now() + WITHIN_MS;
    while (!["paused", "failed"].includes(job.status) && Date.now() < ends) {
      await pause(200);
      job = await jobs.retrieve(job.id);
    }
    check(job.status === "paused" && job.method.type === "supervised", job);
    check(job.distillation.estimate.training_rows > 0, job);
    const asked = JSON.stringify(distillation.budget);
    check(JSON.stringify(job.distillation.asked.budget) === asked, job);
    check((await jobs.cancel(job.id)).status === "cancelled", "cancel");
  }
  for (const one of await all(completions.list({ metadata: { run: fileId } })))
    check((await completions.delete(one.id)).deleted, "delete");
}

async function chat(client, model) {
  const messages = [{ role: "user", content: "In the end the picnic was rather splendid." }];
  const metadata = { app: "node", model };
  const stored = await client.chat.completions.create({ model, messages, store: true, metadata });
  check(stored.choices[0].message.content === "good", stored);
  const said = await all(await client.chat.completions.create({ model, messages, stream: true }));
  check(said.map((one) => one.choices[0]?.delta.content ?? "").join("") === "good", said);
  const completions = client.chat.completions;
  const found = await all(completions.list({ metadata: { model } }));
  check(found.length === 1 && found[0].id === stored.id, found);
  check((await all(completions.messages.list(stored.id)))[0].content === messages[0].content, "messages");
  check((await completions.update(stored.id, { metadata: { app: "changed" } })).metadata.app === "changed", "update");
  check((await completions.delete(stored.id)).deleted, "delete");
}

async function refused(asked, status) {
  try {
    await asked();
  } catch (error) {
    check(error.status === status && error.code, String(error));
    return error;
  }
  throw new Error(`not refused with ${status}`);
}

const [baseURL, apiKey = "any", teacher] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 300_000 });
const rows = trainingRows();
const file = await client.files.create({ file: await toFile(Buffer.from(rows), "moods.jsonl"), purpose: "fine-tune" });
check(file.filename === "moods.jsonl" && file.bytes === rows.length, file);
check((await (await client.files.content(file.id)).text()) === rows, "content");
check((await all(client.files.list({ limit: 1 }))).some((one) => one.id === file.id), "files");
await held(client, file.id, teacher);
const job = await jobOf(client, file.id);
check((await all(client.fineTuning.jobs.listEvents(job.id, { limit: 2 }))).length > 4, "events");
check((await all(client.fineTuning.jobs.checkpoints.list(job.id))).length > 0, "checkpoints");
const model = job.fine_tuned_model;
check((await client.models.retrieve(model)).id === model, "model");
check((await all(client.models.list())).some((one) => one.id === model), "models");
await chat(client, model);
const conflict = await refused(() => client.fineTuning.jobs.cancel(job.id), 409);
check(conflict.headers.get("x-should-retry") === "false", "x-should-retry");
check((await client.models.delete(model)).deleted, "delete the model");
check((await client.files.delete(file.id)).deleted, "delete the file");
await refused(() => client.models.retrieve(model), 404);
console.log(`openai ${VERSION} for Node: every step went well`);
