"""The status page as text: what status.py found out, as HTML that needs nothing from elsewhere.

Each number stands in an element whose id the script knows; both sides draw the throughput line by
the same rule. Colours follow the reader's light or dark setting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from isobath.engine.statistics import BoundOp, EngineFacts

WIDTH, HEIGHT = 640, 120
"""Of the throughput picture's own coordinates."""

STYLE = """
:root{color-scheme:light dark;--bg:#f4f7f9;--card:#fff;--ink:#14232e;--dim:#5f7482;--line:#dde6ec;
--deep:#0b6e99;--fill:#0b6e9922;--warm:#c9772b;--ok:#1b8a5a;--bad:#c23b3b;--wait:#a87608}
@media (prefers-color-scheme:dark){:root{--bg:#0b141b;--card:#121f29;--ink:#e3edf3;--dim:#8ba1af;
--line:#213442;--deep:#46b6e6;--fill:#46b6e622;--warm:#e6a05c;--ok:#4fc78f;--bad:#f07a7a;
--wait:#e0b44c}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 48px}
header{display:flex;align-items:center;gap:14px;flex-wrap:wrap;margin-bottom:22px}
header svg{width:38px;height:38px;flex:none}h1{font-size:22px;margin:0;letter-spacing:-.01em}
header p{margin:0;color:var(--dim);font-size:13px}.grow{flex:1;min-width:220px}
.pill{border-radius:99px;padding:3px 13px;font-size:13px;font-weight:600;border:1px solid}
.ready{color:var(--ok)}.dead,.offline{color:var(--bad)}.loading,.draining{color:var(--wait)}
.grid{display:grid;gap:14px;grid-template-columns:repeat(4,1fr)}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px;
min-width:0}
.card h2,caption{font-size:12px;font-weight:600;color:var(--dim);margin:0;text-align:left;
text-transform:uppercase;letter-spacing:.05em}
.num{font-size:30px;font-weight:650;line-height:1.25;font-variant-numeric:tabular-nums}
.num small{font-size:14px;font-weight:500;color:var(--dim)}
.note{color:var(--dim);font-size:12.5px;margin:0;font-variant-numeric:tabular-nums}
.bar{height:6px;border-radius:3px;background:var(--line);margin:6px 0 5px;overflow:hidden}
.bar i{display:block;height:100%;background:var(--deep);border-radius:3px;transition:width .4s}
.wide{grid-column:1/-1}.row{display:flex;justify-content:space-between;align-items:baseline;gap:12px;
flex-wrap:wrap}
#spark{width:100%;height:120px;display:block;margin:8px 0}
#spark path{vector-effect:non-scaling-stroke}
#spark .g{stroke:var(--deep);fill:none;stroke-width:2;stroke-linejoin:round}
#spark .a{fill:var(--fill);stroke:none}
#spark .p{stroke:var(--warm);fill:none;stroke-width:1.5;stroke-dasharray:4 3}
#spark .x{stroke:var(--line);stroke-width:1}
.key b{display:inline-block;width:16px;height:0;border-top:2px solid var(--deep);
vertical-align:middle;margin:0 5px 0 12px}.key b.p{border-top:2px dashed var(--warm)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13px;margin-top:8px}
th{font-weight:600;color:var(--dim);text-align:left;padding:5px 12px 5px 0;white-space:nowrap}
td{border-top:1px solid var(--line);padding:6px 12px 6px 0;vertical-align:top}
td:first-child,td code{font-family:ui-monospace,SFMono-Regular,Menlo,monospace;font-size:12.5px}
.v{font-weight:600;white-space:nowrap}.v.ok{color:var(--ok)}.v.un{color:var(--wait)}
.v.bad{color:var(--bad)}.v.no{color:var(--dim);font-weight:400}
summary{cursor:pointer;color:var(--dim)}
details ul{margin:4px 0 0;padding-left:18px;color:var(--dim)}
footer{color:var(--dim);font-size:12.5px;margin-top:18px}a{color:var(--deep)}
@media (max-width:760px){.grid{grid-template-columns:repeat(2,1fr)}}
"""

SCRIPT = """
const [W,H]=document.getElementById("spark").dataset.size.split(" ").map(Number);
const $=id=>document.getElementById(id),n=x=>Math.round(x).toLocaleString("en-US");
function line(v,m){const w=W,h=H,k=Math.max(1,v.length-1);
return v.map((y,i)=>(i?"L":"M")+(w*i/k).toFixed(1)+" "+(h-2-(h-8)*y/m).toFixed(1)).join("")}
function draw(s){const g=s.generation_rates,p=s.prompt_rates,m=Math.max(1,...g),k=Math.max(1,...p);
const c=line(g,m);$("g").setAttribute("d",c);$("p").setAttribute("d",line(p,k));
$("a").setAttribute("d",c?c+`L${W} ${H}L0 ${H}Z`:"");
$("rate").textContent=n(g.length?g[g.length-1]:0);
$("prate").textContent=n(p.length?p[p.length-1]:0);
$("peak").textContent=n(g.length?m:0);$("ppeak").textContent=n(p.length?k:0)}
function span(t){const d=Math.floor(t/86400),h=Math.floor(t/3600)%24,m=Math.floor(t/60)%60;
return d?d+" d "+h+" h":h?h+" h "+m+" min":m?m+" min "+Math.floor(t%60)+" s":Math.floor(t)+" s"}
function show(s){document.body.dataset.live=s.uptime_seconds;
const f=$("phase");f.textContent=s.phase;f.className="pill "+s.phase;
$("running").textContent=n(s.running);$("waiting").textContent=n(s.waiting);
$("kv").textContent=(100*s.kv_cache_usage).toFixed(1);
$("kvbar").style.width=100*s.kv_cache_usage+"%";
$("hits").textContent=s.prefix_hit_rate===null?"–":(100*s.prefix_hit_rate).toFixed(1)+"%";
$("ptok").textContent=n(s.prompt_tokens);$("gtok").textContent=n(s.generation_tokens);
$("preempt").textContent=n(s.preemptions);$("up").textContent=span(s.uptime_seconds);draw(s)}
async function tick(){try{const r=await fetch("status.json",{cache:"no-store"});
if(!r.ok)throw r.status;show(await r.json())}
catch(e){const f=$("phase");f.textContent="offline";f.className="pill offline"}
setTimeout(tick,1000)}
show(JSON.parse($("now").textContent));setTimeout(tick,1000);
"""

MARK = """<svg viewBox="0 0 40 40" fill="none" stroke="var(--deep)" stroke-width="2"
stroke-linecap="round" aria-hidden="true"><path d="M3 11c6-5 11-5 17 0s11 5 17 0"/>
<path d="M3 20c6-5 11-5 17 0s11 5 17 0" opacity=".65"/>
<path d="M3 29c6-5 11-5 17 0s11 5 17 0" opacity=".35"/></svg>"""


def page(status: Mapping[str, Any], facts: EngineFacts | None) -> str:
    """The whole document."""
    model, phase = escape(status["model"]), escape(status["phase"])
    now = json.dumps(status).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{model} · isobath</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">
<style>{STYLE}</style></head><body><main>
<header>{MARK}<div class="grow"><h1>{model}</h1><p>{_subtitle(status, facts)}</p></div>
<span id="phase" class="pill {phase}">{phase}</span></header>
<section class="grid">
{_counts(status, facts)}
{_cache(status, facts)}
{_card("Prefix cache", _live("hits", _rate(status["prefix_hit_rate"])), "", "of tokens looked up")}
{_throughput(status)}
{_plan(facts)}
</section>
<footer>isobath {escape(status["version"])} · up <span id="up"></span> ·
<a href="metrics">metrics</a> · <a href="plan">plan</a> · <a href="status.json">status</a> ·
<a href="openapi.json">API</a></footer>
</main><script type="application/json" id="now">{now}</script><script>{SCRIPT}</script>
</body></html>
"""


def curve(values: Sequence[float]) -> str:
    """An SVG path through the values: 0 at the bottom, the largest near the top."""
    steps, most = max(1, len(values) - 1), max([1.0, *values])
    points = [
        f"{WIDTH * i / steps:.1f} {HEIGHT - 2 - (HEIGHT - 8) * v / most:.1f}"
        for i, v in enumerate(values)
    ]
    return "M" + "L".join(points) if points else ""


def _subtitle(status: Mapping[str, Any], facts: EngineFacts | None) -> str:
    if facts is None:
        return "the checkpoint is being loaded"
    parts = [
        f"{facts.device} ({facts.arch})",
        f"FP8 {facts.dialect}, {facts.numerics} numerics",
        f"context {status['max_model_len']:,} tokens",
        f"chat format {status['chat_format'] or 'none'}",
    ]
    return escape(" · ".join(parts))


def _card(title: str, number: str, unit: str, note: str = "", bar: str = "") -> str:
    small = f" <small>{unit}</small>" if unit else ""
    below = f'<p class="note">{note}</p>' if note else ""
    return (
        f'<div class="card"><h2>{title}</h2><div class="num">{number}{small}</div>'
        f"{bar}{below}</div>"
    )


def _live(name: str, text: str) -> str:
    """A number that the script keeps up to date."""
    return f'<span id="{name}">{text}</span>'


def _counts(status: Mapping[str, Any], facts: EngineFacts | None) -> str:
    running, waiting = f"{status['running']:,}", f"{status['waiting']:,}"
    most = f"at most {facts.max_num_seqs:,} an engine" if facts else ""
    first = _card("Running", _live("running", running), "sequences", most)
    return first + _card(
        "Waiting", _live("waiting", waiting), "sequences", "first come, first served"
    )


def _cache(status: Mapping[str, Any], facts: EngineFacts | None) -> str:
    usage = 100 * status["kv_cache_usage"]
    bar = f'<div class="bar"><i id="kvbar" style="width:{usage}%"></i></div>'
    note = ""
    if facts:
        gib = facts.cache_bytes / (1 << 30)
        size = f"{gib:,.1f} GiB" if gib >= 1 else f"{1024 * gib:,.1f} MiB"
        note = f"of {facts.num_pages * facts.page_tokens:,} tokens, {size}"
    return _card("KV cache", _live("kv", f"{usage:.1f}"), "% in use", note, bar)


def _throughput(status: Mapping[str, Any]) -> str:
    prompt, generation = status["prompt_rates"], status["generation_rates"]
    line = curve(generation)
    area = f"{line}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z" if line else ""
    last = generation[-1] if generation else 0
    return f"""<div class="card wide"><div class="row"><div><h2>Throughput</h2>
<div class="num"><span id="rate">{last:,.0f}</span> <small>tokens/s generated</small></div></div>
<p class="note key"><b></b>generated, peak <span id="peak">0</span><b class="p"></b>prompts,
now <span id="prate">0</span>, peak <span id="ppeak">0</span> tokens/s</p></div>
<svg id="spark" data-size="{WIDTH} {HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"
preserveAspectRatio="none" role="img"
aria-label="tokens per second over the last minute and a half">
<path class="x" d="M0 {HEIGHT - 1}H{WIDTH}"/>
<path id="a" class="a" d="{area}"/><path id="p" class="p" d="{curve(prompt)}"/>
<path id="g" class="g" d="{line}"/></svg>
<p class="note"><span id="gtok">{status["generation_tokens"]:,}</span> tokens generated,
<span id="ptok">{status["prompt_tokens"]:,}</span> prompt tokens,
<span id="preempt">{status["preemptions"]:,}</span> preemptions since the start</p></div>"""


def _plan(facts: EngineFacts | None) -> str:
    if facts is None:
        return ""
    others = any(op.rejected for op in facts.ops)
    rows = "".join(_row(op, others=others) for op in facts.ops)
    last = "<th>not taken</th>" if others else ""
    return f"""<div class="card wide"><h2>Plan</h2><div class="scroll"><table><thead><tr><th>op</th>
<th>backend</th><th>verdict</th><th>why</th>{last}</tr></thead><tbody>{rows}</tbody>
</table></div></div>"""


def _row(op: BoundOp, *, others: bool) -> str:
    mark, text = verdict(op)
    items = "".join(f"<li><code>{escape(b)}</code>: {escape(w)}</li>" for b, w in op.rejected)
    more = f"<details><summary>{len(op.rejected)}</summary><ul>{items}</ul></details>"
    last = f"<td>{more if items else ''}</td>" if others else ""
    return (
        f"<tr><td>{escape(op.op)}</td><td><code>{escape(op.backend)}</code></td>"
        f'<td class="v {mark}">{text}</td><td>{escape(op.reason)}</td>{last}</tr>'
    )


def verdict(op: BoundOp) -> tuple[str, str]:
    """(class, words) of what the reason says about proof."""
    if "failed verdicts" in op.reason:
        return "bad", "✕ failed, allowed"
    if op.reason.startswith("fastest"):
        return "ok", "✓ passed"
    if "small cases" in op.reason:
        return "un", "◦ checked at start"
    return "no", "none needed" if op.backend == "torch" else "not asked"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
