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


{#- The number a text is; null where it is none, such as the label of an answer. -#}
{% macro number_of(text) -%}
    {{ return(adapter.dispatch('number_of')(text)) }}
{%- endmacro %}

{% macro default__number_of(text) -%}
    case when {{ text }} ~ '^-?[0-9]+([.][0-9]+)?$' then cast({{ text }} as numeric(9, 2)) end
{%- endmacro %}


{#- The instant a text names: ISO 8601, a date alone (its midnight UTC) or milliseconds since 1970, the forms HubSpot
    gives. -#}
{% macro instant_of(text) -%}
    {{ return(adapter.dispatch('instant_of')(text)) }}
{%- endmacro %}

{% macro default__instant_of(text) -%}
    case
            when {{ text }} like '____-__-__T%' then cast({{ text }} as timestamp with time zone)
            when {{ text }} like '____-__-__' then cast({{ text }} || ' 00:00:00+00' as timestamp with time zone)
            else to_timestamp(cast({{ text }} as numeric) / 1000)
        end
{%- endmacro %}


{#- The last day of every month from that of `first_day` to that of `last_day`, as a lateral relation of `month_end`. -#}
{% macro month_ends(first_day, last_day) -%}
    {{ return(adapter.dispatch('month_ends')(first_day, last_day)) }}
{%- endmacro %}

{% macro default__month_ends(first_day, last_day) -%}
    (
        select cast(months.first_of_month + interval '1 month' - interval '1 day' as date) as month_end
        from generate_series(
            date_trunc('month', cast({{ first_day }} as timestamp)),
            date_trunc('month', cast({{ last_day }} as timestamp)),
            interval '1 month'
        ) as months (first_of_month)
    )
{%- endmacro %}


{#- Whether a day is the last of its month. -#}
{% macro is_month_end(day) -%}
    {{ return(adapter.dispatch('is_month_end')(day)) }}
{%- endmacro %}

{% macro default__is_month_end(day) -%}
    extract(day from {{ day }} + 1) = 1
{%- endmacro %}


{#- Every day from one to another, both included, as a lateral relation of `calendar_day`. -#}
{% macro days_of(first_day, last_day) -%}
    {{ return(adapter.dispatch('days_of')(first_day, last_day)) }}
{%- endmacro %}

{% macro default__days_of(first_day, last_day) -%}
    (
        select cast(each_day.midnight as date) as calendar_day
        from generate_series(
            cast({{ first_day }} as timestamp), cast({{ last_day }} as timestamp), interval '1 day'
        ) as each_day (midnight)
    )
{%- endmacro %}


{#- The day `days` before (negative: after) another one. -#}
{% macro days_before(day, days) -%}
    {{ return(adapter.dispatch('days_before')(day, days)) }}
{%- endmacro %}

{% macro default__days_before(day, days) -%}
    ({{ day }} - ({{ days }}))
{%- endmacro %}


{#- The day `months` calendar months after another one; the last day of a shorter month. -#}
{% macro months_after(day, months) -%}
    {{ return(adapter.dispatch('months_after')(day, months)) }}
{%- endmacro %}

{% macro default__months_after(day, months) -%}
    cast({{ day }} + interval '1 month' * {{ months }} as date)
{%- endmacro %}


{#- The first day of the calendar month of a day. -#}
{% macro month_start(day) -%}
    {{ return(adapter.dispatch('month_start')(day)) }}
{%- endmacro %}

{% macro default__month_start(day) -%}
    cast(date_trunc('month', cast({{ day }} as timestamp)) as date)
{%- endmacro %}


{#- The first day of the calendar quarter of a day. -#}
{% macro quarter_start(day) -%}
    {{ return(adapter.dispatch('quarter_start')(day)) }}
{%- endmacro %}

{% macro default__quarter_start(day) -%}
    cast(date_trunc('quarter', cast({{ day }} as timestamp)) as date)
{%- endmacro %}


{#- A fingerprint (hex) of the rows of a group: of each row's text, in the order given. -#}
{% macro fingerprint_of(text, order_by) -%}
    {{ return(adapter.dispatch('fingerprint_of')(text, order_by)) }}
{%- endmacro %}

{% macro default__fingerprint_of(text, order_by) -%}
    encode(sha256(convert_to(string_agg({{ text }}, chr(10) order by {{ order_by }}), 'UTF8')), 'hex')
{%- endmacro %}


{#- Whole days from `earlier` to `later`, as an integer. -#}
{% macro days_between(earlier, later) -%}
    {{ return(adapter.dispatch('days_between')(earlier, later)) }}
{%- endmacro %}

{% macro default__days_between(earlier, later) -%}
    ({{ later }} - {{ earlier }})
{%- endmacro %}


{#- The different texts of a group in alphabetical order, with a sign between them; null where there is none. -#}
{% macro joined_texts(text, sign) -%}
    {{ return(adapter.dispatch('joined_texts')(text, sign)) }}
{%- endmacro %}

{% macro default__joined_texts(text, sign) -%}
    string_agg(distinct {{ text }}, '{{ sign }}' order by {{ text }})
{%- endmacro %}


{#- A value as text. -#}
{% macro as_text(value) -%}
    {{ return(adapter.dispatch('as_text')(value)) }}
{%- endmacro %}

{% macro default__as_text(value) -%}
    cast({{ value }} as text)
{%- endmacro %}


{#- A text with everything that a pattern matches replaced; the pattern is written out. -#}
{% macro regex_replace(text, pattern, replacement) -%}
    {{ return(adapter.dispatch('regex_replace_by')(text, "'" ~ pattern ~ "'", replacement)) }}
{%- endmacro %}


{#- The same by a pattern that is an expression. -#}
{% macro regex_replace_by(text, pattern, replacement) -%}
    {{ return(adapter.dispatch('regex_replace_by')(text, pattern, replacement)) }}
{%- endmacro %}

{% macro default__regex_replace_by(text, pattern, replacement) -%}
    regexp_replace({{ text }}, {{ pattern }}, '{{ replacement }}', 'g')
{%- endmacro %}


{#- A set of small numbers (0 to 62) as the bits of a bigint: the set of one number alone. -#}
{% macro bit_mask(number) -%}
    {{ return(adapter.dispatch('bit_mask')(number)) }}
{%- endmacro %}

{% macro default__bit_mask(number) -%}
    cast(1 as bigint) << cast({{ number }} as integer)
{%- endmacro %}


{#- The union of such sets, as an aggregate; null without one. -#}
{% macro bit_union(mask) -%}
    {{ return(adapter.dispatch('bit_union')(mask)) }}
{%- endmacro %}

{% macro default__bit_union(mask) -%}
    bit_or({{ mask }})
{%- endmacro %}


{#- How many numbers such a set holds, as a bigint. -#}
{% macro bit_count(mask) -%}
    {{ return(adapter.dispatch('bit_count')(mask)) }}
{%- endmacro %}

{% macro default__bit_count(mask) -%}
    bit_count(cast({{ mask }} as bit(64)))
{%- endmacro %}


{#- Hours from one instant to another, with their fraction. -#}
{% macro hours_between(earlier, later) -%}
    {{ return(adapter.dispatch('hours_between')(earlier, later)) }}
{%- endmacro %}

{% macro default__hours_between(earlier, later) -%}
    cast(extract(epoch from {{ later }} - {{ earlier }}) / 3600 as numeric(18, 4))
{%- endmacro %}


{#- The texts of a group one behind the other, in an order. -#}
{% macro joined_in_order(text, sign, order_by) -%}
    {{ return(adapter.dispatch('joined_in_order')(text, sign, order_by)) }}
{%- endmacro %}

{% macro default__joined_in_order(text, sign, order_by) -%}
    string_agg({{ text }}, '{{ sign }}' order by {{ order_by }})
{%- endmacro %}


{#- Where a text falls between 0 and 1 by its md5: the same on every engine and every day, and by chance. -#}
{% macro hash_share(text) -%}
    {{ return(adapter.dispatch('hash_share')(text)) }}
{%- endmacro %}

{% macro default__hash_share(text) -%}
    cast(cast(cast('x' || substr(md5({{ text }}), 1, 8) as bit(32)) as bigint) as numeric(20, 0)) / 4294967296
{%- endmacro %}


{#- Whether a relation is there, by the database's own word and not dbt's cache. -#}
{% macro is_there(relation) -%}
    {{ return(adapter.dispatch('is_there')(relation)) }}
{%- endmacro %}

{% macro default__is_there(relation) -%}
    {%- set found = list_relations_without_caching(relation.without_identifier()) -%}
    {{ return(relation.identifier in found.columns['name'].values()) }}
{%- endmacro %}
