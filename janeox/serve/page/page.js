"use strict";
// The page of the server: chat and completion over /v1, streamed. Text goes in by textContent only.

const WORDS = {
  ja: { chat: "対話", write: "続きを書く", send: "送信", stop: "停止", clear: "消去", tokens: "トークンを表示", settings: "設定",
    temperature: "温度", topP: "top-p", penalty: "繰り返しの抑制", maxTokens: "最大トークン数", seed: "シード", key: "APIキー",
    ask: "話しかけてください（Ctrl+Enter で送信）", begin: "書き出しを入れてください（Ctrl+Enter で送信）", other: "English",
    chatHint: "対話の形式で答えます。書き出しの続きは「続きを書く」で。", writeHint: "書き出しを入れると、モデルが続きを書きます。",
    tokenTitle: "各トークンの確率（選ぶと候補が出ます）" },
  en: { chat: "Chat", write: "Continue a text", send: "Send", stop: "Stop", clear: "Clear", tokens: "Show tokens", settings: "Settings",
    temperature: "Temperature", topP: "top-p", penalty: "Repetition penalty", maxTokens: "Most tokens", seed: "Seed", key: "API key",
    ask: "Say something (Ctrl+Enter sends)", begin: "The beginning of a text (Ctrl+Enter sends)", other: "日本語",
    chatHint: "Answers as in a dialogue. “Continue a text” goes on from a beginning.", writeHint: "Give the beginning of a text, and the model goes on.",
    tokenTitle: "Probability of each token (choose one to see what else was likely)" },
};
const $ = (id) => document.getElementById(id);
const state = { language: (navigator.language || "ja").startsWith("ja") ? "ja" : "en", mode: "chat", messages: [], running: null };

function label() {
  const words = WORDS[state.language];
  document.documentElement.lang = state.language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = words[element.dataset.text];
  $("language").textContent = words.other;
  $("text").placeholder = state.mode === "chat" ? words.ask : words.begin;
  $("text").setAttribute("aria-label", $("text").placeholder);
  $("turns").dataset.hint = words.chatHint;
  $("written").dataset.hint = words.writeHint;
}

function show(mode) {
  state.mode = mode;
  for (const name of ["chat", "write"]) {
    $(name).hidden = name !== mode;
    $(`${name}-tab`).setAttribute("aria-selected", String(name === mode));
  }
  label();
}

function add(parent, className, text, kind = "span") {
  const element = document.createElement(kind);
  element.className = className;
  element.textContent = text;
  parent.append(element);
  return element;
}

const shown = (text) => text.replace(/\n/g, "⏎").replace(/^ +$/, (spaces) => "␣".repeat(spaces.length));
const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)}%`;

function token(row) {
  const p = Math.exp(row.logprob);
  const element = add($("tokens"), `token ${p >= 0.9 ? "p9" : p >= 0.5 ? "p5" : p >= 0.1 ? "p1" : "p0"}`, shown(row.token), "button");
  add(element, "", percent(row.logprob), "small");
  element.addEventListener("click", () => likeliest(row.top));
  element.addEventListener("focus", () => likeliest(row.top));
}

function likeliest(top) {
  $("likeliest").hidden = false;
  $("likeliest").replaceChildren();
  for (const one of top) {
    const line = add($("likeliest"), "", "", "li");
    add(line, "", shown(one.token));
    add(line, "", percent(one.logprob));
    add(add(line, "", ""), "", "", "b").style.width = percent(one.logprob - top[0].logprob); // the likeliest fills the line
  }
}

// The log-probabilities of a chunk in one form for both endpoints.
function rows(logprobs) {
  if (!logprobs) return [];
  if (logprobs.content) return logprobs.content.map((row) => ({ ...row, top: row.top_logprobs }));
  return logprobs.tokens.map((text, n) => ({
    token: text, logprob: logprobs.token_logprobs[n],
    top: Object.entries(logprobs.top_logprobs[n]).map(([other, logprob]) => ({ token: other, logprob })),
  }));
}

function request(text) {
  const body = { stream: true };
  for (const name of ["temperature", "top_p", "repetition_penalty", "max_tokens", "seed"])
    if ($(name).value !== "") body[name] = Number($(name).value);
  const tokens = $("show-tokens").checked;
  if (state.mode === "chat") {
    body.messages = state.messages;
    if (tokens) Object.assign(body, { logprobs: true, top_logprobs: 5 });
    return ["/v1/chat/completions", body];
  }
  body.prompt = text;
  if (tokens) body.logprobs = 5;
  return ["/v1/completions", body];
}

function headers() {
  const key = $("key").value;
  return key ? { "Content-Type": "application/json", Authorization: `Bearer ${key}` } : { "Content-Type": "application/json" };
}

async function* events(path, body, signal) {
  const answer = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (held + value).split("\n");
    held = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: {")) continue;
      const row = JSON.parse(line.slice(6));
      if (row.error) throw new Error(row.error.message);
      yield row.choices[0];
    }
  }
}

async function send() {
  const text = $("text").value;
  if (!text || state.running) return;
  state.running = new AbortController();
  $("error").hidden = true;
  $("tokens").replaceChildren();
  $("likeliest").hidden = true;
  $("token-view").hidden = !$("show-tokens").checked;
  $("send").hidden = true;
  $("stop").hidden = false;
  let target;
  let whole = "";
  const chatting = state.mode === "chat";
  if (chatting) {
    state.messages.push({ role: "user", content: text });
    add($("turns"), "turn user", text);
    target = add($("turns"), "turn assistant", "");
    $("text").value = "";
  } else {
    $("written").replaceChildren();
    add($("written"), "given", text);
    target = add($("written"), "new", "");
  }
  document.querySelector("main").scrollTop = 1e9;
  try {
    for await (const choice of events(...request(text), state.running.signal)) {
      whole += choice.delta ? choice.delta.content || "" : choice.text;
      const main = document.querySelector("main");
      const following = main.scrollHeight - main.scrollTop - main.clientHeight < 80; // whoever has scrolled up stays there
      target.textContent = whole;
      rows(choice.logprobs).forEach(token);
      if (following) main.scrollTop = main.scrollHeight;
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      $("error").textContent = error.message;
      $("error").hidden = false;
    }
  }
  if (chatting) {
    if (whole) state.messages.push({ role: "assistant", content: whole });
    else { // nothing came: the turn goes back to where it was typed
      state.messages.pop();
      target.previousSibling.remove();
      target.remove();
      $("text").value = text;
    }
  }
  state.running = null;
  $("send").hidden = false;
  $("stop").hidden = true;
  $("text").focus();
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
$("text").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send(); });
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && state.running) state.running.abort(); });
$("stop").addEventListener("click", () => state.running?.abort());
$("clear").addEventListener("click", () => {
  state.running?.abort();
  state.messages = [];
  for (const id of ["turns", "written", "tokens"]) $(id).replaceChildren();
  $("token-view").hidden = true;
});
$("chat-tab").addEventListener("click", () => show("chat"));
$("write-tab").addEventListener("click", () => show("write"));
$("language").addEventListener("click", () => { state.language = state.language === "ja" ? "en" : "ja"; label(); });
fetch("/v1/models", { headers: headers() }).then((answer) => answer.json()).then((list) => { if (list.data) $("model").textContent = list.data[0].id; });
label();
