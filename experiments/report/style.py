"""How the page looks: on wide and narrow screens, in light and dark, on paper."""

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b2127; --soft: #59636e; --line: #d5dbe1; --card: #f5f7f9;
  --link: #0b5cad; --warn: #8a4b00; --run-0: #0077bb; --run-1: #e0611b; --run-2: #00877a; --run-3: #cc3311;
  --run-4: #1f9fd0; --run-5: #d91e63; }
@media screen and (prefers-color-scheme: dark) { :root { --ground: #14181c; --ink: #e5e9ed; --soft: #a0abb6;
  --line: #343c44; --card: #1c2228; --link: #77b7ff; --warn: #f0b35a; --run-0: #4fb0ee; --run-1: #ff9a5c;
  --run-2: #2fc4b2; --run-3: #ff7a5c; --run-4: #8bdcff; --run-5: #ff75a8; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
p, ul { max-width: 75ch; }
a { color: var(--link); }
a.run { color: inherit; text-decoration: none; overflow-wrap: anywhere; }
a.run:hover { text-decoration: underline; }
.lead { font-size: 1.05rem; }
.note, .meanings ul, footer, figcaption { color: var(--soft); font-size: .875rem; }
.meanings ul { padding-left: 1.1rem; margin: .3rem 0 0; }
.meanings summary { font-size: .875rem; }
.meanings b { color: var(--ink); font-weight: 600; }
.problems { color: var(--warn); font-size: .9rem; }
.swatch { width: 28px; height: 14px; vertical-align: -2px; fill: none; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .9rem; max-width: none; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .55rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { min-width: 4.2rem; color: var(--soft); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; position: sticky; left: 0; background: var(--ground); max-width: 45vw; }
th a.run { white-space: nowrap; }
.figures td { white-space: nowrap; }
.fields td { max-width: 22rem; overflow-wrap: anywhere; }
td.none { color: var(--soft); }
figure { margin: 0 0 .8rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; border: 1px solid var(--line); }
figure > img { max-height: 46rem; width: auto; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 1rem; }
.panels figcaption { color: var(--ink); font-weight: 600; }
.panels svg { width: 100%; height: auto; }
.panels svg text { font-family: system-ui, sans-serif; }
.pair { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 0 1.2rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 230px), 1fr)); gap: .8rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 0 1rem 1rem;
  margin: 1rem 0; scroll-margin-top: 1rem; }
article tbody th { background: var(--card); }
article:target { border-color: var(--link); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem .9rem; margin: .6rem 0; font-size: .9rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { font: .8125rem/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: .5rem 0;
  padding: .6rem .8rem; background: var(--ground); border: 1px solid var(--line); border-radius: 4px; }
summary { cursor: pointer; color: var(--link); padding: .3rem 0; }
footer { margin-top: 3rem; }
@media screen and (max-width: 520px) { tbody th { overflow-wrap: anywhere; min-width: 8.5rem; }
  th a.run { white-space: normal; } .swatch { margin-right: -.2rem; } }
@media print { body { font-size: 10pt; } main { max-width: none; padding: 0; } h2, h3 { break-after: avoid; }
  figure, tr, article > dl { break-inside: avoid; } .scroll { overflow: visible; } table { font-size: 7.5pt; }
  th, td { padding: .2rem .35rem; } .figures td { white-space: normal; } tbody th { position: static; max-width: none; }
  details:not([open], .meanings) { display: none; } .meanings summary { display: none; }
  .meanings::details-content { content-visibility: visible; block-size: auto; } }
"""
