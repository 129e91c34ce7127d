{#- account_features is kept for the run's date, for every date built before and for every month-end. A build makes
    few of its rows, so that a day's cost does not grow with the dates kept:
      1. claim       account_features_due marks what intermediate.restatement_queue holds (accounts, and the day from
                     which something of them has changed) and brings CRM companies to the accounts they stand for; it
                     then lists the rows to make
      2. remove      account_features takes the claimed accounts' rows out, of every date from their day on
      3. the model   appends the rows that are due
      4. settle      takes the claimed rows out of the queue
    The last three are one transaction. If it fails, the next build claims the same rows again and lists anew. -#}

{% macro claim_restatements() -%}
    update {{ source('intermediate', 'restatement_queue') }} set claimed_by = '{{ var("run_id") }}'
{%- endmacro %}


{% macro resolve_claimed_companies() -%}
    insert into {{ source('intermediate', 'restatement_queue') }} (load_id, account_key, from_date, claimed_by)
    select
        claimed.load_id,
        account_crosswalk.account_id as account_key,
        claimed.from_date,
        claimed.claimed_by
    from {{ source('intermediate', 'restatement_queue') }} as claimed
    inner join {{ ref('int_account_crosswalk') }} as account_crosswalk
        on claimed.account_key = account_crosswalk.source_system || ':' || account_crosswalk.source_account_id
    where
        claimed.claimed_by = '{{ var("run_id") }}'
        and account_crosswalk.source_system <> 'orders'
    on conflict do nothing
{%- endmacro %}


{#- The claimed accounts with the first day to make anew, as a query. -#}
{% macro claimed_restatements() -%}
    select
        account_key as account_id,
        min(from_date) as from_date
    from {{ source('intermediate', 'restatement_queue') }}
    where claimed_by = '{{ var("run_id") }}'
    group by account_key
{%- endmacro %}


{#- The table account_features as it stands before the build; none before the first one. Not by ref, since
    account_features is made from what asks for it. -#}
{% macro kept_features() -%}
    {%- if execute -%}
    {{ return(adapter.get_relation(this.database, this.schema, 'account_features')) }}
    {%- endif -%}
{%- endmacro %}


{#- Whether all accounts are due on all dates: on the first build, and where account_features is made anew. -#}
{% macro makes_every_date(kept_features) -%}
    {{ return(flags.FULL_REFRESH or not kept_features) }}
{%- endmacro %}


{% macro remove_claimed_restatements() -%}
    {%- if is_incremental() -%}
    delete from {{ this }} as kept
    using ({{ claimed_restatements() }}) as claimed
    where
        kept.account_id = claimed.account_id
        and kept.as_of_date >= claimed.from_date
    {%- endif -%}
{%- endmacro %}


{#- The incremental strategy `remap` of the crosswalk: replaces all of it, and has the accounts that gained or lost a
    CRM company restated from the beginning, since a company stands for its account on every date. No load brought
    that about alone, so the queue names none. -#}
{% macro get_incremental_remap_sql(arguments) -%}
    {%- set columns = get_quoted_csv(arguments['dest_columns'] | map(attribute='name')) %}
    insert into {{ source('intermediate', 'restatement_queue') }} (load_id, account_key, from_date)
    select
        cast('00000000-0000-0000-0000-000000000000' as uuid) as load_id,
        changed.account_id as account_key,
        cast('0001-01-01' as date) as from_date
    from (
        select coalesce(before.account_id, '') as account_before, coalesce(after.account_id, '') as account_after
        from (select * from {{ arguments['target_relation'] }} where source_system <> 'orders') as before
        full outer join (select * from {{ arguments['temp_relation'] }} where source_system <> 'orders') as after
            on
                before.source_system = after.source_system
                and before.source_account_id = after.source_account_id
    ) as mappings
    cross join lateral (select account_before as account_id union select account_after) as changed
    where mappings.account_before <> mappings.account_after and changed.account_id <> ''
    on conflict do nothing;

    delete from {{ arguments['target_relation'] }};

    insert into {{ arguments['target_relation'] }} ({{ columns }})
    select {{ columns }} from {{ arguments['temp_relation'] }}
{%- endmacro %}
