{#- What identifies a company, made comparable; the legal forms and free-mail domains are seeds. Each is null where nothing
    is left that could tell companies apart. -#}

{#- A tax id without its punctuation: capitals and digits, at least five and not zeros alone. -#}
{% macro normal_tax_id(text) -%}
    nullif(
        {{ regex_replace(regex_replace('upper(' ~ text ~ ')', '[^A-Z0-9]', ''), '^(.{0,4}|0+)$', '') }},
        ''
    )
{%- endmacro %}


{#- The host of a domain or a web address, without `www.`. -#}
{% macro normal_domain(text) -%}
    nullif(
        {{ regex_replace(
            regex_replace('lower(trim(' ~ text ~ '))', '^([a-z]+://)?(www[.])?|[/:?#].*$|[.]$', ''), '^[^.]*$', ''
        ) }},
        ''
    )
{%- endmacro %}


{#- A company's name in small letters, without punctuation and legal forms (`words` and `endings`: those of the seed,
    joined by `|`; endings, as of Chinese names, are not set apart by a space). -#}
{% macro normal_name(text, words, endings) -%}
    nullif(
        trim({{ regex_replace(
            regex_replace_by(
                "' ' || translate(lower(" ~ text ~ "), ',-/_&+()\"；;:（），、。·.''', '                  ') || ' '",
                "'( (' || " ~ words ~ " || ')|(' || " ~ endings ~ " || '))(?= )'",
                ''
            ),
            ' +',
            ' '
        ) }}),
        ''
    )
{%- endmacro %}


{#- How directly a record stands for its account: 1 by its own number or id or by a person's word, 2 by a rule, 3 by a merge. -#}
{% macro directness(matched_by) -%}
    case {{ matched_by }} when 'merge' then 3 when 'tax_id' then 2 when 'domain' then 2 when 'name' then 2 else 1 end
{%- endmacro %}


{#- The first day of all and the day after the last: what stands for "from the beginning" and "still" while periods are
    compared. They are no dates of anything, and leave no model. -#}
{% macro beginning() -%} cast('0001-01-01' as date) {%- endmacro %}
{% macro end_of_time() -%} cast('9999-12-31' as date) {%- endmacro %}


{#- Whether a mapping (a row with valid_from_date and valid_until_date, null: from the beginning, still) holds on a day. -#}
{% macro holds_on(mapping, day) -%}
    ({{ mapping }}.valid_from_date <= {{ day }} or {{ mapping }}.valid_from_date is null)
    and ({{ mapping }}.valid_until_date > {{ day }} or {{ mapping }}.valid_until_date is null)
{%- endmacro %}


{#- Which customers (system `orders`) or tenants (`behavior`) the series of merged accounts are made of, as a query;
    `series` is the column of int_account_spans that names them. -#}
{% macro members_of_series(series, system) -%}
    select
        merged_spans.account_id,
        merged_spans.{{ series }} as series_id,
        crosswalk.source_account_id
    from {{ ref('int_account_spans') }} as merged_spans
    inner join {{ ref('int_account_crosswalk') }} as crosswalk
        on
            merged_spans.account_id = crosswalk.account_id
            and {{ holds_on('crosswalk', "coalesce(merged_spans.valid_from_date, " ~ beginning() ~ ")") }}
    where
        merged_spans.{{ series }} like ' %'
        and crosswalk.source_system = '{{ system }}'
{%- endmacro %}


{#- The days an account is made of: those of one customer (tenant) as they stand in the rollup, or of several together.
    A series is named by the customer's own number; int_account_spans names those of several. -#}
{% macro order_series() -%}
    (
        select
            account_id as series_id, order_date, country, orders, gross_sales, returns_amount, net_revenue
        from {{ ref('int_account_days') }}
        union all
        select
            series_id, order_date, country, orders, gross_sales, returns_amount, net_revenue
        from {{ ref('int_merged_order_days') }}
    )
{%- endmacro %}

{% macro usage_series() -%}
    (
        select
            account_id as series_id, usage_date, logins, sessions, core_feature_uses, core_feature_mask, active_minutes
        from {{ ref('int_usage_days') }}
        union all
        select
            series_id, usage_date, logins, sessions, core_feature_uses, core_feature_mask, active_minutes
        from {{ ref('int_merged_usage_days') }}
    )
{%- endmacro %}
