{#- How Spark spells what portable.sql asks for. The session's time zone has to be UTC: its timestamps are instants.
    docs/portability.md is written from these by compiling the project with dbt-spark. -#}

{% macro spark__local_date(instant) -%}
    cast(from_utc_timestamp({{ instant }}, '{{ var("company_timezone") }}') as date)
{%- endmacro %}

{% macro spark__day_start(day) -%}
    least(
        to_utc_timestamp(cast({{ day }} as timestamp), '{{ var("company_timezone") }}'),
        to_utc_timestamp(cast({{ day }} as timestamp) - interval '1 second', '{{ var("company_timezone") }}')
        + interval '1 second'
    )
{%- endmacro %}

{% macro spark__json_text(document, property) -%}
    nullif(trim(get_json_object({{ document }}, '$.{{ property }}')), '')
{%- endmacro %}

{% macro spark__number_of(text) -%}
    case when {{ text }} rlike '^-?[0-9]+([.][0-9]+)?$' then cast({{ text }} as numeric(9, 2)) end
{%- endmacro %}

{% macro spark__instant_of(text) -%}
    case
            when {{ text }} like '____-__-__T%' then to_timestamp({{ text }})
            when {{ text }} like '____-__-__' then to_timestamp({{ text }} || 'T00:00:00Z')
            else timestamp_millis(cast({{ text }} as bigint))
        end
{%- endmacro %}

{% macro spark__month_ends(first_day, last_day) -%}
    (
        select explode(
            transform(
                sequence(trunc({{ first_day }}, 'month'), trunc({{ last_day }}, 'month'), interval '1' month),
                first_of_month -> last_day(first_of_month)
            )
        ) as month_end
    )
{%- endmacro %}

{% macro spark__is_month_end(day) -%}
    last_day({{ day }}) = {{ day }}
{%- endmacro %}

{% macro spark__days_of(first_day, last_day) -%}
    (
        select explode(sequence({{ first_day }}, {{ last_day }}, interval '1' day)) as calendar_day
    )
{%- endmacro %}

{% macro spark__days_before(day, days) -%}
    date_sub({{ day }}, cast({{ days }} as integer))
{%- endmacro %}

{% macro spark__months_after(day, months) -%}
    add_months({{ day }}, cast({{ months }} as integer))
{%- endmacro %}

{% macro spark__month_start(day) -%}
    trunc({{ day }}, 'month')
{%- endmacro %}

{% macro spark__quarter_start(day) -%}
    trunc({{ day }}, 'quarter')
{%- endmacro %}

{% macro spark__fingerprint_of(text, order_by) -%}
    sha2(
        array_join(
            transform(
                array_sort(collect_list(struct({{ order_by }}, {{ text }} as fingerprinted))),
                each_row -> each_row.fingerprinted
            ),
            '\n'
        ),
        256
    )
{%- endmacro %}

{% macro spark__days_between(earlier, later) -%}
    datediff({{ later }}, {{ earlier }})
{%- endmacro %}

{% macro spark__hours_between(earlier, later) -%}
    cast((unix_micros({{ later }}) - unix_micros({{ earlier }})) / 3600000000 as numeric(18, 4))
{%- endmacro %}

{% macro spark__joined_texts(text, sign) -%}
    nullif(array_join(array_sort(collect_set({{ text }})), '{{ sign }}'), '')
{%- endmacro %}

{% macro spark__joined_in_order(text, sign, order_by) -%}
    array_join(
        transform(array_sort(collect_list(struct({{ order_by }}, {{ text }} as joined))), each_row -> each_row.joined),
        '{{ sign }}'
    )
{%- endmacro %}

{% macro spark__as_text(value) -%}
    cast({{ value }} as string)
{%- endmacro %}

{% macro spark__regex_replace_by(text, pattern, replacement) -%}
    regexp_replace({{ text }}, {{ pattern }}, '{{ replacement }}')
{%- endmacro %}

{% macro spark__bit_mask(number) -%}
    shiftleft(cast(1 as bigint), cast({{ number }} as integer))
{%- endmacro %}

{% macro spark__bit_union(mask) -%}
    bit_or({{ mask }})
{%- endmacro %}

{% macro spark__bit_count(mask) -%}
    cast(bit_count({{ mask }}) as bigint)
{%- endmacro %}

{% macro spark__hash_share(text) -%}
    cast(conv(substr(md5({{ text }}), 1, 8), 16, 10) as numeric(20, 0)) / 4294967296
{%- endmacro %}

{% macro spark__is_there(relation) -%}
    {{ return(adapter.get_relation(relation.database, relation.schema, relation.identifier) is not none) }}
{%- endmacro %}
