"""The template of the report: plain HTML with its style inside."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Loss landscape of {{ runs | length }} run{{ "s" if runs | length > 1 }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 3rem; border-top: 1px solid #bbb; padding-top: 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { padding: .2rem .7rem; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
figcaption, .note { color: #444; font-size: .875rem; } .failed { color: #a32020; }
code { font-size: .9em; overflow-wrap: anywhere; }
</style>
</head>
<body>
{% macro pictures(figures) %}
{% for figure in figures %}
<figure>
<h3>{{ figure.title }}</h3>
{% if figure.image %}<img alt="{{ figure.title }}" src="data:image/png;base64,{{ figure.image }}">{% endif %}
{% if figure.said %}<figcaption>{{ figure.said }}</figcaption>{% endif %}
</figure>
{% endfor %}
{% endmacro %}
<h1>Loss landscape</h1>
<p class="note">Written by landscape {{ version }}. Values stand with ± one standard error where they were sampled.</p>
{% if comparison %}
<h2>{{ runs | length }} runs compared</h2>
{{ pictures(comparison.figures) }}
<div class="scroll"><table>
<tr><th>last value</th>{% for name in comparison.names %}<th><code>{{ name }}</code></th>{% endfor %}</tr>
{% for row in comparison.rows %}
<tr><td>{{ row.label }}</td>
{% for value in row["values"] %}<td class="number">{{ value | number }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endif %}
{% for run in runs %}
<h2><code>{{ run.summary.path }}</code></h2>
{% if run.summary.state %}<p>{{ run.summary.state.sentence }}</p>{% endif %}
<div class="scroll"><table>
{% for name, value in run.summary.attributes.items() if name not in life %}
<tr><th>{{ name | replace("_", " ") }}</th><td>{{ value | plain }}</td></tr>
{% endfor %}
</table></div>
<h3>What was measured</h3>
<div class="scroll"><table>
<tr><th>group</th><th>rows</th><th>failed</th><th>steps</th><th>seconds</th><th>what</th></tr>
{% for group in run.summary.groups %}
<tr><td>{{ group.name }}</td><td class="number">{{ group.rows }}</td><td class="number">{{ group.failed }}</td>
<td>{{ "–" if group.first_step is none else group.first_step ~ " to " ~ group.last_step }}</td>
<td class="number">{{ "%.3g" | format(group.wall_seconds) }}</td><td>{{ group.description }}</td></tr>
{% endfor %}
</table></div>
<h3>First and last values</h3>
<div class="scroll"><table>
<tr><th>measure</th><th>first</th><th>at step</th><th>last</th><th>at step</th></tr>
{% for value in run.summary["values"] if value.main %}
<tr><td>{{ value.label }}</td><td class="number">{{ value.first | number }}</td>
<td class="number">{{ value.first.step }}</td><td class="number">{{ value.last | number }}</td>
<td class="number">{{ value.last.step }}</td></tr>
{% endfor %}
</table></div>
{{ pictures(run.figures) }}
{% if run.summary.failures %}
<h3 class="failed">Failed measurements</h3>
<ul>
{% for failure in run.summary.failures %}
<li>{{ failure.group }} at step {{ failure.step }} ({{ failure.status }}): {{ failure.reason }}</li>
{% endfor %}
</ul>
{% endif %}
{% endfor %}
</body>
</html>
"""
