{#- account_features is kept for the run's date, for every date built before and for every month-end. A build makes
    few of its rows, so that a day's cost does not grow with the dates kept:
      1. claim       account_features_due marks what intermediate.restatement_queue holds (accounts, and the day from
                     which something of them has changed) and brings customers, tenants and CRM companies to the
                     accounts they stand for, at any time; it then lists the rows to make
      2. remove      account_features takes the claimed accounts' rows out, of every date from their day on
      3. the model   appends the rows that are due
      4. settle      takes the claimed rows out of the queue
    The last three are one transaction. If it fails, the next build claims the same rows again and lists anew. -#}

{% macro claim_restatements() -%}
    update {{ source('intermediate', 'restatement_queue') }} set claimed_by = '{{ var("run_id") }}'
{%- endmacro %}


{% macro resolve_claimed_ids() -%}
    insert into {{ source('intermediate', 'restatement_queue') }} (load_id, account_key, from_date, claimed_by)
    select
        claimed.load_id,
        account_crosswalk.account_id as account_key,
        claimed.from_date,
        claimed.claimed_by
    from {{ source('intermediate', 'restatement_queue') }} as claimed
    inner join {{ ref('int_account_crosswalk') }} as account_crosswalk
        on
            claimed.account_key
            = case when account_crosswalk.source_system in ('orders', 'behavior') then ''
                else account_crosswalk.source_system || ':' end || account_crosswalk.source_account_id
    where
        claimed.claimed_by = '{{ var("run_id") }}'
        and claimed.account_key <> account_crosswalk.account_id
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


{#- The incremental strategy `remap` of the crosswalk: replaces all of it, and has the accounts that an id came to or left
    (or that became internal, or no more) restated from the first day on which that differs. A CRM company that is new
    or gone stands for its account on every date; days of a customer or tenant that is new are queued by its load.
    No load brought any of it about alone, so the queue names none. -#}
{% macro get_incremental_remap_sql(arguments) -%}
    {%- set columns = get_quoted_csv(arguments['dest_columns'] | map(attribute='name')) %}
    {%- set before = arguments['target_relation'] %}
    {%- set after = arguments['temp_relation'] %}
    insert into {{ source('intermediate', 'restatement_queue') }} (load_id, account_key, from_date)
    select distinct
        cast('00000000-0000-0000-0000-000000000000' as uuid) as load_id,
        changed.account_id as account_key,
        changes.from_date
    from (
        select
            before.account_id as account_before,
            after.account_id as account_after,
            greatest(before.valid_from_date, after.valid_from_date, {{ beginning() }}) as from_date
        from {{ before }} as before
        inner join {{ after }} as after
            on
                before.source_system = after.source_system
                and before.source_account_id = after.source_account_id
        where
            (before.account_id <> after.account_id or before.is_internal <> after.is_internal)
            and coalesce(before.valid_from_date, {{ beginning() }}) < coalesce(after.valid_until_date, {{ end_of_time() }})
            and coalesce(after.valid_from_date, {{ beginning() }}) < coalesce(before.valid_until_date, {{ end_of_time() }})
        {%- for one, other in [(before, after), (after, before)] %}
        union all
        select
            one.account_id as account_before,
            one.account_id as account_after,
            {{ beginning() }} as from_date
        from {{ one }} as one
        where
            one.source_system not in ('orders', 'behavior')
            and not exists (
                select 1
                from {{ other }} as other
                where
                    other.source_system = one.source_system
                    and other.source_account_id = one.source_account_id
            )
        {%- endfor %}
    ) as changes
    cross join lateral (
        select changes.account_before as account_id union select changes.account_after as account_id
    ) as changed
    on conflict do nothing;

    delete from {{ before }};

    insert into {{ before }} ({{ columns }})
    select {{ columns }} from {{ after }}
{%- endmacro %}
