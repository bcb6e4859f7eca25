"""Writes tests/fixtures/conversations/jinja.json: small templates, and what transformers renders of them.

    python -m venv .venv && .venv/bin/pip install transformers==5.24.0 jinja2==3.1.6
    .venv/bin/python tests/reference/make_jinja_fixture.py

A template that Python refuses has `null` for its text. Dates are those of a computer in UTC with glibc.
"""

import datetime
import json
from pathlib import Path

import transformers
from transformers.utils import chat_template_utils

fixtures = Path(__file__).resolve().parent.parent / "fixtures" / "conversations"

numbers = """
0 -0 1 -1 20 20.0 -0.0 0.1 1e5 1E5 1e15 1e16 1e17 123456789012345680.0 1e21 1e22 1e-4 1e-5 1e-7 1.5e-10
9007199254740991 9007199254740992 9007199254740993 -9223372036854775808 18446744073709551615
100000000000000000000000000000 1.7976931348623157e308 5e-324 2.2250738585072014e-308 0.30000000000000004
3.14159265358979311599796346854 100.0 1.10 12345.678e3 0.00001 0.0001 123456789.123456789
""".split()

data = {
    "none": None,
    "yes": True,
    "one": 1,
    "half": 0.5,
    "text": "It's \"so\": a\\b\n\té 🙂 </x> & ü",
    "quote": "it's",
    "blank": " \t\n\u00a0x y\u2003\x1f",
    "items": [3, 1, 2],
    "mixed": ["b", "A", "a", 1.0, None, True, {"k": [1, {"z": "é"}]}],
    "empty": [],
    "dict": {"b": 1, "a": {"10": 1, "2": 2, "items": 3}, "none": None, "get": "x"},
    "people": [
        {"name": "Zoe", "age": 3, "tags": ["x"]},
        {"name": "adam", "age": 20.5},
        {"name": "Eve", "age": None, "on": True},
    ],
    "emoji": "a🙂b👩‍👩‍👧",
    "lines": "one\n\n  two\r\nthree\n",
    "odd": "\u200b\u2028\u00ad\u0007\x7f\ufeff\ue000",
}

expressions = r"""
none | yes | no | one | half | text | quote | blank | items | mixed | dict | odd
text|tojson | mixed|tojson | dict|tojson(indent=2) | dict|tojson(indent=0) | mixed|tojson(indent=4, ensure_ascii=True)
odd|tojson | odd|tojson(ensure_ascii=true) | dict|tojson(sort_keys=True) | dict|tojson(separators=(',', ':'))
dict|tojson(separators=(',', ':'), indent=1) | empty|tojson(indent=2) | {}|tojson(indent=2) | (1, 2)|tojson | nothing|tojson
none|tojson | [none, yes, half, one]|tojson | {2: 2, none: 3, true: 4, 0.5: 5}|tojson | [1.0, 1e]|tojson | half|string|tojson
(1, 'a') | (one, none) | [one, [half]] | {'a': one, 'b': {'c': none}} | [] | {} | [quote, "x"] | {quote: quote}
none ~ yes ~ half ~ 'x' ~ nothing | 'a' + 'b' | 'a' + one | 'a' + none | 'a' + nothing | one + half | one + yes | 7 // 2 | -7 // 2
7 % 3 | -7 % 3 | 7 % -3 | -7.5 % 2 | 7 / 2 | 6 / 2 | 2 ** 10 | 2 ** -1 | 2.0 ** 3 | 'ab' * 3 | [1] * 2 | 1 / 0 | 7.5 // 2
1 == 1.0 | true == 1 | '1' == 1 | [1] == [1.0] | {'a': 1} == {'a': 1} | none == none | nothing == none | 'a' < 'b' | 1 < 'a' | [1, 2] < [1, 3]
'a' in 'abc' | 1 in items | 1.0 in items | 'b' in dict | 'x' in nothing | none in mixed | 'z' not in dict | 1 in 'a' | 'a' in none
text.upper() | text.title() | quote|title | text|capitalize | text.capitalize() | 'ÉA'.lower() | 'straße'.upper() | 'ab cd'|title
blank.strip() | blank.lstrip() | blank.rstrip() | blank|trim | 'xxaxx'.strip('x') | '\n\n a\n'.strip('\n') | '\n a'.lstrip('\n') | 'a \n'.rstrip() | 'abcba'.strip('ab') | 'xay'|trim('xy')
'a,b,,c'.split(',') | ' a  b '.split() | 'a b c'.split(' ', 1) | 'a b  c d'.split(none, 2) | 'a,b,c'.rsplit(',', 1) | 'a  b  c '.rsplit(none, 1) | ''.split() | ''.split(',') | 'a'.split('')
lines.splitlines() | lines.splitlines(true) | 'a-b-c'.partition('-') | 'a-b-c'.rpartition('-') | 'abc'.partition('x')
'aaa'.replace('a', 'b', 2) | 'aaa'.replace('a', '$&') | 'abc'.replace('', '-') | 'aaa'|replace('a', 'b') | 'aaa'|replace('a', 'b', 1) | 'abc'.replace('', '-', 2)
'abc'.startswith('ab') | 'abc'.startswith(('x', 'a')) | 'abc'.endswith('bc') | 'abcb'.find('b') | 'abcb'.rfind('b') | emoji.find('b') | 'abc'.find('x') | 'abc'.index('x') | 'banana'.count('an')
'-'.join(['a', 'b']) | '-'.join([1]) | ['a', 1, none]|join(', ') | items|join | people|join('/', attribute='name') | 'abc'|join('-')
'7'.zfill(3) | '-7'.zfill(4) | 'a'.ljust(3) | 'a'.rjust(3, '.') | 'ab'.center(5, '*') | 'ab'.center(7) | 'abc'.center(6, '-') | 'abc'.removeprefix('a') | 'abc'.removesuffix('bc')
'12'.isdigit() | ''.isdigit() | 'a1'.isalnum() | 'ab'.isalpha() | 'aB'.islower() | 'AB'.isupper() | ' '.isspace() | 'Ab Cd'.istitle() | 'aB'.swapcase() | 'a1'.islower()
emoji[1] | emoji[-1] | emoji[1:3] | emoji|length | emoji|reverse | text[::-1] | items[::-1] | items[1:] | items[-2:] | items[:-1] | items[5:] | items[::2] | items[-1] | items[7] | items['x'] | items.0 | (1, 2, 3)[1:] | 'abc'[5]
dict.items()|list | dict.keys()|list | dict.values()|list | dict.a['items'] | dict['a']['10'] | dict.get('b') | dict.get('x') | dict.get('x', 7) | dict.get('none', 7) | dict['get'] | dict.none | dict.none is none | dict.x is defined | dict.x.y | none.x | none['x'] | nothing.x | nothing['x'] | nothing()
dict|items|list | nothing|items|list | dict|dictsort | {'b': 1, 'A': 2}|dictsort | {'b': 1, 'A': 2}|dictsort(true) | {'b': 1, 'A': 2}|dictsort(by='value', reverse=true) | dict|length | dict|list | dict|first
items|sort | items|sort(reverse=true) | ['b', 'A', 'a']|sort | ['b', 'A', 'a']|sort(case_sensitive=true) | people|sort(attribute='name')|map(attribute='name')|list | [1, 'a']|sort | ['b', 'A', 'B', 'a']|unique|list | items|sum | people|map(attribute='age')|list | people|map(attribute='x', default='-')|list | ['a', 'b']|map('upper')|list | items|max | items|min | empty|max | [1.5, 2]|sum
people|selectattr('on')|list|length | people|rejectattr('on', 'defined')|map(attribute='name')|join(',') | people|selectattr('age', 'gt', 2)|list | people|selectattr('name', 'equalto', 'Eve')|first | people|selectattr('name', 'in', ['Eve', 'Zoe'])|list|length | items|select('odd')|list | items|reject('equalto', 1)|list | people|map(attribute='tags.0')|list | mixed|select|list
items|first | items|last | empty|first | empty|last | items|length | none|length | one|length | nothing|length | 'abc'|list | dict|string | items|string | none|string | 'a'|string | items|batch(2)|list | items|batch(2, 0)|list
'12'|int | '12.7'|int | 'x'|int | 'x'|int(5) | 3.9|int | -3.9|int | '1_0'|int | none|int | yes|int | '1.5'|float | 'x'|float | '1e3'|float | 1|float | 2.5|round | 3.5|round | 2.675|round(2) | 0.125|round(2) | 1.005|round(2) | -2.5|round | 2.5|round(1) | 7|round(2) | 7|round(1, "floor") | 2.5|round(method='ceil') | -1|abs | -1.5|abs | 42|round
nothing|default('x') | none|default('x') | none|default('x', true) | ''|default('x') | ''|d('x', true) | nothing|default | nothing|default(none) | half|default(1)
lines|indent | lines|indent(2, true) | lines|indent(2, blank=true) | 'a\nb'|indent('> ') | text|wordcount | 'a b'|wordcount | 'x'|safe | 'x'|upper|lower | nothing|trim | none|upper | nothing|upper
none is none | nothing is defined | nothing is undefined | one is number | yes is number | yes is integer | one is integer | half is float | half is integer | yes is boolean | 'a' is string | items is sequence | items is iterable | dict is mapping | dict is sequence | nothing is iterable | nothing is sequence | none is iterable | yes is true | one is true | 1 is odd | 2 is even | 'ab' is lower | 'AB' is upper | none is not none | range is callable | one is number and half is number
not nothing | not items | nothing or 'x' | none and 1 | items and 1 | '' or none or 0 | 'x' if one | 'x' if none | 'x' if none else 'y' | 1 if 2 else 3 if 4 else 5 | -one | +half | -yes | -'a' | not 1 == 2
range(3)|list | range(1, 4)|list | range(5, 0, -2)|list | range(0)|list | dict(a=1, b=2) | dict({'x': 1}, y=2) | namespace(a=1).a | items.append(4) | dict.update({}) | raise_exception('no') | unknown_function(1) | one|nofilter | 1 is notest
""".replace("\n", " | ").split(" | ")

templates = [
    "{% for x in items %}{{ loop.index }}/{{ loop.length }}:{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for x in items %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem is defined }} {{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.depth }}{% endfor %}",
    "{% for x in empty %}x{% else %}none{% endfor %}|{% for x in items if x > 5 %}x{% else %}none{% endfor %}",
    "{% for x in items if x != 1 %}{{ loop.index0 }}{{ x }}{% endfor %}",
    "{% for k, v in dict.items() %}{{ k }}={{ v }};{% endfor %}{% for k in dict %}{{ k }}{% endfor %}",
    "{% for a, b in [[1, 2], (3, 4), 'xy'] %}{{ a }}{{ b }} {% endfor %}",
    "{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}",
    "{% for c in emoji %}[{{ c }}]{% endfor %}{% for x in nothing %}x{% endfor %}",
    "{% for x in none %}x{% endfor %}",
    "{% for x in one %}x{% endfor %}",
    "{% for x in items %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% if x == 2 %}{% break %}{% endif %}{% endfor %}",
    "{% for x in items %}{% for y in items %}{{ x }}{% if y == 1 %}{% break %}{% endif %}{{ loop.depth0 }}{% endfor %};{% endfor %}",
    "{% set x = 1 %}{% for y in items %}{% set x = y %}{{ x }}{% endfor %}{{ x }}",
    "{% for y in items %}{% if loop.first %}{% set seen = 'yes' %}{% endif %}{{ seen }},{% endfor %}{{ seen is defined }}",
    "{% set ns = namespace(n=0) %}{% for y in items %}{% set ns.n = ns.n + y %}{% endfor %}{{ ns.n }}{{ ns.x }}",
    "{% if none %}a{% elif items %}b{% else %}c{% endif %}{% if nothing %}x{% endif %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t %} x {{ a }} {% endset %}[{{ t }}]{{ t|trim|length }}",
    "{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=1, a=5) }}{{ m() }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(x=2) }}",
    "{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}",
    "{% macro m() %}{{ x }}{% endmacro %}{% for x in items %}{{ m() }}{% endfor %}{% set x = 9 %}{{ m() }}",
    "{% macro box(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call box('b') %}in {{ one }}{% endcall %}",
    "{% macro each() %}{% for x in items %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(y) each() %}[{{ y }}]{% endcall %}",
    "{% filter upper %}a{{ text }}{% endfilter %}",
    "{% for x in items %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }}{% endfor %}",
    "  {% if one %}\n  x\n  {% endif %}\n  y\n",
    "a\n{#- comment -#}\n b {# c #}\n{{- one -}}\n c\n",
    "{{ one }}\n\n",
    "line\r\nnext\r{{ one }}\r\n",
    "{%- set d = dict -%}{{ d.b }}{{ dict.b }}",
    "{% set items2 = items + [9] %}{{ items2 }}{{ items }}{{ items2[-1] }}",
    "{{ {'a': [1, 2]}.a[1] }}{{ {'a': 1}['a'] }}{{ [1, 2, 3][1] }}{{ 'abc'.upper()[1:] }}",
    "{% set x = {'role': 'user', 'n': [1, {'z': none}]} %}{{ x }}{{ x|tojson }}",
    "{{ 'a' 'b' }}{{ \"it's\" }}{{ 'tab\\tnew\\nline \\\\ \\' ' }}",
    "{{ people[1].age + 1 }}{{ people[0]['tags'][0] }}{{ people[-1].age is none }}",
    "{% for p in people %}{{ p.name ~ ': ' ~ p.age ~ ' ' ~ p.on }};{% endfor %}",
]

codes = "aAwdebBmyYHIpPMSfjUWcxXGgVuCDFhklnrRsTtzZ%"
formats = ["%" + c for c in codes] + [
    *["%-d", "%-m", "%_d", "%_H", "%-I", "%-j", "%0e", "%^a", "%^B", "%#Z", "%#p", "%10d", "%5Y", "%-y", "%05d"],
    *["%d %B %Y", "%d %b %Y", "%A, %B %-d, %Y", "100%", "%Q", "%é", "a%", "%%d", "%Ey %Od", "%", ""],
]
dates = ["2024-07-06", "2026-01-01", "2023-12-31", "2024-02-29", "2021-01-03", "1999-11-08", "2020-12-31"]


def rendered(source, variables):
    try:
        return chat_template_utils._compile_jinja_template(source).render(**variables)
    except Exception:
        return None


number_rows = []
for number in numbers:
    value = json.loads(number)
    number_rows.append(
        {
            "json": number,
            "tojson": rendered("{{ x | tojson }}", {"x": value}),
            "text": rendered("{{ x }}", {"x": value}),
            "list": rendered("{{ [x] }}", {"x": value}),
        }
    )
sources = ["{{ " + each.strip() + " }}" for each in expressions if each.strip()] + templates
result = {
    "transformers": transformers.__version__,
    "data": json.dumps(data),
    "numbers": number_rows,
    "templates": [{"source": source, "text": rendered(source, data)} for source in sources],
    "dates": [
        {
            "date": date,
            "texts": {f: datetime.datetime.fromisoformat(date).strftime(f) for f in formats if f != "%s"},
        }
        for date in dates
    ],
}
target = fixtures / "jinja.json"
target.write_text(json.dumps(result, ensure_ascii=True, indent=1) + "\n")
print(target, len(sources), "templates,", sum(t["text"] is None for t in result["templates"]), "refused")
