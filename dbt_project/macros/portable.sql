{#- What engines spell differently stands here and nowhere else. -#}

{#- The company's calendar day of an instant. -#}
{% macro local_date(instant) -%}
    {{ return(adapter.dispatch('local_date')(instant)) }}
{%- endmacro %}

{% macro default__local_date(instant) -%}
    cast({{ instant }} at time zone '{{ var("company_timezone") }}' as date)
{%- endmacro %}


{#- The instant a calendar day begins in the company's time zone: the first midnight, where the clock is set back over
    it and the day has two. PostgreSQL reads a time that comes twice as the later one; the second before comes once. -#}
{% macro day_start(day) -%}
    {{ return(adapter.dispatch('day_start')(day)) }}
{%- endmacro %}

{% macro default__day_start(day) -%}
    least(
        cast({{ day }} as timestamp) at time zone '{{ var("company_timezone") }}',
        (cast({{ day }} as timestamp) - interval '1 second') at time zone '{{ var("company_timezone") }}'
        + interval '1 second'
    )
{%- endmacro %}


{#- A property of a JSON object as text; null where it is missing or blank. -#}
{% macro json_text(document, property) -%}
    {{ return(adapter.dispatch('json_text')(document, property)) }}
{%- endmacro %}

{% macro default__json_text(document, property) -%}
    nullif(trim({{ document }} ->> '{{ property }}'), '')
{%- endmacro %}


{#- The day `days` before (negative: after) another one. -#}
{% macro days_before(day, days) -%}
    {{ return(adapter.dispatch('days_before')(day, days)) }}
{%- endmacro %}

{% macro default__days_before(day, days) -%}
    ({{ day }} - ({{ days }}))
{%- endmacro %}


{#- Whole days from `earlier` to `later`, as an integer. -#}
{% macro days_between(earlier, later) -%}
    {{ return(adapter.dispatch('days_between')(earlier, later)) }}
{%- endmacro %}

{% macro default__days_between(earlier, later) -%}
    ({{ later }} - {{ earlier }})
{%- endmacro %}


{#- A value as text. -#}
{% macro as_text(value) -%}
    {{ return(adapter.dispatch('as_text')(value)) }}
{%- endmacro %}

{% macro default__as_text(value) -%}
    cast({{ value }} as text)
{%- endmacro %}
