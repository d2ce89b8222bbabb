/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the manager's page does with script: it keeps numbers up to date, filters as one types, and
 * asks in a dialog instead of pages of its own. All texts of forms and questions are the server's;
 * whatever changes the list of members brings a new page, of which the parts are taken. Texts get
 * into the page as text nodes only. */
"use strict";

const EVERY = 2000;                     /* ms between two looks */
const POINTS = 60;                      /* of a chart */
const SVG = "http://www.w3.org/2000/svg";
const PARTS = ["pools", "diff", "journal"];

const live = document.getElementById("live");
const news = document.getElementById("news");
const filter = document.getElementById("filter");
const pools = () => document.getElementById("pools");
let dialog = null;                      /* made when it is needed first */

/* ---- values ---- */

const at = (object, path) =>
    path.split(".").reduce((value, key) => value ? value[key] : null, object);

/* As rp_html_shown() of the server has it. */
function shown(value, as) {
    if (value === null || value === undefined)
        return as === "or-nothing" ? "" : "\u2013";
    if (typeof value === "boolean")
        return value ? "yes" : "no";
    if (as === "limit" && value === 0)
        return "no limit";
    return as === "ms" ? value.toFixed(value < 10 ? 1 : 0) : String(value);
}

function setText(element, text) {
    if (element.textContent !== text)
        element.textContent = text;
}

function setAttribute(element, name, value) {
    if (element.getAttribute(name) !== value)
        element.setAttribute(name, value);
}

function update(scope, object) {
    for (const element of scope.querySelectorAll("[data-key]"))
        setText(element, shown(at(object, element.dataset.key), element.dataset.as));
}

/* ---- times ---- */

const UNITS = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

function showTimes() {
    const now = Date.now();

    for (const element of document.querySelectorAll("time[datetime]")) {
        const seconds = Math.round((Date.parse(element.dateTime) - now) / 1000);
        const [length, name] = UNITS.find(([unit]) => Math.abs(seconds) >= unit) || UNITS[3];

        setText(element, words.format(Math.trunc(seconds / length), name));
    }
}

/* ---- charts: requests per second, and what they took ---- */

const series = new Map();               /* pool -> { last, rates, times } */

function record(pool, time) {
    const past = series.get(pool.name) || { last: null, rates: [], times: [] };
    const { count, sum } = pool.latency.total;
    const now = { time, requests: pool.traffic.requests, count, sum };

    if (past.last && time > past.last.time) {
        const requests = now.requests - past.last.requests;
        const ended = now.count - past.last.count;

        past.rates.push(Math.max(0, requests) * 1000 / (time - past.last.time));
        past.times.push(ended > 0 ? (now.sum - past.last.sum) / ended : null);
        if (past.rates.length > POINTS) {
            past.rates.shift();
            past.times.shift();
        }
    }
    past.last = now;
    series.set(pool.name, past);
    return past;
}

function makeChart(box, name) {
    const figure = document.createElement("figure");
    const image = document.createElementNS(SVG, "svg");

    figure.dataset.chart = name;
    image.setAttribute("viewBox", `0 0 ${POINTS - 1} 20`);
    image.setAttribute("preserveAspectRatio", "none");
    image.setAttribute("aria-hidden", "true");
    image.append(document.createElementNS(SVG, "path"));
    figure.append(image, document.createElement("figcaption"));
    box.append(figure);
    return figure;
}

function drawChart(box, name, values, caption) {
    const figure = box.querySelector(`[data-chart="${name}"]`) || makeChart(box, name);
    const top = Math.max(...values.filter(value => value !== null), 1e-9);
    let path = "", isOn = false;

    values.forEach((value, index) => {
        if (value !== null) {
            const x = POINTS - values.length + index, y = 19 - 18 * value / top;

            path += `${isOn ? "L" : "M"}${x} ${y.toFixed(2)}`;
        }
        isOn = value !== null;
    });
    setAttribute(figure.querySelector("path"), "d", path);
    setText(figure.querySelector("figcaption"), caption);
}

function drawCharts(section, past) {
    const box = section.querySelector(".charts");
    const rate = past.rates.at(-1), time = past.times.at(-1);

    if (rate === undefined)
        return;
    drawChart(box, "rate", past.rates, `${rate.toFixed(rate < 10 ? 1 : 0)} requests per second`);
    drawChart(box, "time", past.times,
              time === null ? "no request has ended" : `${shown(time, "ms")} ms on average`);
}

/* ---- what is new ---- */

function updateMember(row, member, pool, said) {
    if (row.dataset.state !== member.state) {
        said.push(`${member.url} in ${pool.name} is ${member.state} now`);
        row.dataset.state = member.state;
        row.classList.add("fresh");
        setTimeout(() => row.classList.remove("fresh"), 3000);
    }
    update(row, member);
}

function updatePool(section, pool, rows, said, time) {
    for (const member of pool.members)
        updateMember(rows.get(member.id), member, pool, said);
    for (const element of section.querySelectorAll(".facts [data-key]"))
        setText(element, shown(at(pool, element.dataset.key), element.dataset.as));
    for (const element of section.querySelectorAll(".count"))
        element.hidden = !pool.states[element.dataset.state];
    for (const element of section.querySelectorAll(".panic"))
        element.hidden = !(pool.health && pool.health.panic);
    drawCharts(section, record(pool, time));
}

/* The rows of a pool if they are the ones it has; else null. */
function rowsOf(section, pool) {
    const all = section ? section.querySelectorAll("tr[data-member]") : [];
    const rows = new Map([...all].map(row => [row.dataset.member, row]));
    const isSame = section && section.dataset.etag === pool.etag
        && rows.size === pool.members.length && pool.members.every(member => rows.has(member.id));

    return isSame ? rows : null;
}

function show(all) {
    const sections = new Map([...document.querySelectorAll("[data-pool]")]
                             .map(section => [section.dataset.pool, section]));
    const time = Date.parse(all.time);
    const said = [];
    let isSame = sections.size === all.pools.length;

    for (const pool of all.pools) {
        const section = sections.get(pool.name);
        const rows = rowsOf(section, pool);

        if (rows)
            updatePool(section, pool, rows, said, time);
        isSame = isSame && Boolean(rows);
    }
    if (said.length)
        news.textContent = said.join("; ");
    return isSame;
}

/* ---- new pages ---- */

async function fetchPage(url, options) {
    const response = await fetch(url, { cache: "no-store", ...options });
    const type = response.headers.get("Content-Type") || "";

    if (!type.startsWith("text/html"))
        throw new Error(`the server answered ${response.status}`);

    const page = new DOMParser().parseFromString(await response.text(), "text/html");

    if (!page.getElementById("main"))
        throw new Error(`the server answered ${response.status}`);
    return page;
}

/* Somebody is filling in a form, or will get back to where the dialog came from. */
function isBusy() {
    const element = document.activeElement;

    return Boolean(dialog && dialog.open || element && element.closest("#pools form"));
}

/* Takes the parts of a new page; what was open stays open, and the focus where it was. */
function takeParts(page) {
    const focus = document.activeElement, row = focus && focus.closest("tr[data-member]");
    const link = row && [...row.querySelectorAll("a")].indexOf(focus);
    const open = [...document.querySelectorAll("details[open]")].map(element =>
        element.closest("[data-pool]").dataset.pool);

    for (const id of PARTS) {
        const fresh = page.getElementById(id), old = document.getElementById(id);

        if (fresh && old)
            old.replaceWith(document.adoptNode(fresh));
    }
    for (const name of open) {
        const details = document.querySelector(`[data-pool="${name}"] details`);

        if (details)
            details.open = true;
    }
    for (const section of document.querySelectorAll("[data-pool]")) {
        if (series.has(section.dataset.pool))
            drawCharts(section, series.get(section.dataset.pool));
    }
    applyFilter();
    showTimes();
    if (row && link >= 0) {
        const again = document.querySelector(`tr[data-member="${row.dataset.member}"]`);

        if (again)
            again.querySelectorAll("a")[link].focus();
    }
}

function takeMessage(page) {
    const fresh = page.getElementById("message"), old = document.getElementById("message");

    if (old)
        old.remove();
    if (fresh) {
        document.getElementById("main").prepend(document.adoptNode(fresh));
        news.textContent = fresh.textContent;
    }
}

/* ---- looking again and again ---- */

let timer = 0, isLooking = false;

function setLive(text, isLate) {
    setText(live, text);
    live.classList.toggle("late", isLate);
}

async function look() {
    clearTimeout(timer);
    if (isLooking || document.hidden)
        return;
    isLooking = true;
    try {
        const response = await fetch("api/", { cache: "no-store" });

        if (!response.ok)
            throw new Error(`the server answered ${response.status}`);
        if (!show(await response.json()) && !isBusy())
            takeParts(await fetchPage("./"));
        setLive("Live.", false);
        showTimes();
    }
    catch (error) {
        setLive(`Not up to date: ${error.message}. Trying again.`, true);
    }
    isLooking = false;
    timer = setTimeout(look, EVERY);
}

/* ---- filter ---- */

function applyFilter() {
    const text = filter.elements.q.value.trim().toLowerCase();
    const state = filter.elements.state.value;
    let isAny = false;

    for (const section of document.querySelectorAll("[data-pool]")) {
        const name = section.dataset.pool;
        let isShown = !text && !state;

        for (const row of section.querySelectorAll("tr[data-member]")) {
            const words = `${name} ${row.querySelector("th").textContent}`.toLowerCase();

            row.hidden = !words.includes(text) || Boolean(state && row.dataset.state !== state);
            isShown = isShown || !row.hidden;
        }
        section.hidden = !isShown;
        isAny = isAny || isShown;
    }
    document.getElementById("none").hidden = isAny;
}

function startFilter() {
    filter.addEventListener("input", applyFilter);
    filter.addEventListener("submit", event => {
        const query = new URLSearchParams(new FormData(filter));

        event.preventDefault();
        applyFilter();
        history.replaceState(null, "", `./?${query}`);
    });
}

/* ---- dialogs ---- */

function showDialog(page) {
    const main = page.getElementById("main");
    const heading = main.querySelector("h1");

    if (!dialog) {
        dialog = document.createElement("dialog");
        document.body.append(dialog);
    }
    dialog.replaceChildren(...document.adoptNode(main).childNodes);
    dialog.setAttribute("aria-labelledby", heading.id);
    heading.tabIndex = -1;
    showTimes();
    if (!dialog.open)
        dialog.showModal();
    (dialog.querySelector("#confirm .cancel") || heading).focus();
}

function takeAnswer(page) {
    if (page.getElementById("pools")) {
        if (dialog)
            dialog.close();
        takeMessage(page);
        takeParts(page);
    }
    else
        showDialog(page);
}

async function askIn(event, url, options) {
    event.preventDefault();
    try {
        takeAnswer(await fetchPage(url, options));
    }
    catch (error) {
        setLive(`Not done: ${error.message}.`, true);
        if (dialog)
            dialog.close();
    }
}

function startDialogs() {
    document.addEventListener("click", event => {
        const link = event.target.closest("a");

        if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button)
            return;
        if (link.classList.contains("ask"))
            askIn(event, link.href);
        else if (link.closest("dialog") && link.classList.contains("cancel")) {
            event.preventDefault();
            dialog.close();
        }
    });
    document.addEventListener("submit", event => {
        const form = event.target;

        if (form.classList.contains("ask"))
            askIn(event, form.action, {
                method: "POST", body: new URLSearchParams(new FormData(form, event.submitter))
            });
    });
}

/* ---- the beginning ---- */

async function start() {
    showTimes();
    if (!pools())
        return;                         /* one of those that are dialogs elsewhere */
    startDialogs();
    startFilter();
    if ("filtered" in pools().dataset)
        takeParts(await fetchPage("./"));
    document.addEventListener("visibilitychange", look);
    look();
}

start();
