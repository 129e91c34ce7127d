-- What each CRM company is the account of, before merges.
with

rule_dates as (

    select distinct effective_from from {{ ref('identity_rules') }}

),

-- A stretch of time in which the rules are the same; the first one begins with all time.
rule_periods as (

    select
        effective_from,
        case
            when lag(effective_from) over (order by effective_from) is null then {{ beginning() }}
            else effective_from
        end as valid_from_date,
        coalesce(lead(effective_from) over (order by effective_from), {{ end_of_time() }}) as valid_until_date
    from rule_dates

),

rules as (

    select *
    from (
        select
            rule_periods.valid_from_date,
            dated_rules.rule,
            dated_rules.priority,
            dated_rules.is_on,
            row_number() over (
                partition by rule_periods.valid_from_date, dated_rules.rule order by dated_rules.effective_from desc
            ) as newness
        from rule_periods
        inner join {{ ref('identity_rules') }} as dated_rules
            on rule_periods.effective_from >= dated_rules.effective_from
    ) as dated
    where newness = 1

),

legal_forms as (

    select
        coalesce({{ joined_texts("case when place = 'word' then form end", '|') }}, '~') as words,
        coalesce({{ joined_texts("case when place = 'ending' then form end", '|') }}, '~') as endings
    from {{ ref('legal_forms') }}

),

decisions as (

    select * from {{ source('identity', 'decisions_in_force') }}

),

record_decisions as (

    select *
    from (
        select
            *,
            row_number() over (partition by source_system, source_account_id order by decision_id desc) as newness
        from decisions
        where action in ('link', 'separate')
    ) as ranked
    where newness = 1

),

companies as (

    select
        companies.crm_system as source_system,
        companies.source_record_id as source_account_id,
        companies.record_id,
        companies.is_archived,
        coalesce(companies.is_internal, false) as is_flagged,
        lower(companies.account_name) as lower_name,
        {{ normal_name('companies.account_name', 'legal_forms.words', 'legal_forms.endings') }} as plain_name,
        {{ normal_domain('companies.domain') }} as domain,
        {{ normal_tax_id('companies.tax_id') }} as tax_id,
        case
            when record_decisions.action = 'link' then record_decisions.account_id
            when record_decisions.action = 'separate' then companies.record_id
            else companies.account_number
        end as exact_account_id,
        record_decisions.action as decided
    from {{ ref('int_crm_companies') }} as companies
    cross join legal_forms
    left join record_decisions
        on
            companies.crm_system = record_decisions.source_system
            and companies.source_record_id = record_decisions.source_account_id
    where companies.is_latest

),

customers as (

    select
        customers.customer_id,
        {{ normal_name('customers.customer_name', 'legal_forms.words', 'legal_forms.endings') }} as plain_name,
        {{ normal_domain('customers.domain') }} as domain,
        {{ normal_tax_id('customers.tax_id') }} as tax_id
    from {{ ref('stg_customers') }} as customers
    cross join legal_forms
    where customers.is_latest and not customers.is_archived

),

-- A test record is of nobody but itself.
internal_rules as (

    select distinct
        kind,
        value
    from {{ ref('internal_accounts') }}
    where is_internal

),

internal_records as (

    select distinct companies.record_id
    from companies
    inner join internal_rules
        on
            (internal_rules.kind = 'source_flag' and companies.is_flagged)
            or (internal_rules.kind = 'domain' and companies.domain = internal_rules.value)
            or (internal_rules.kind = 'name_pattern' and companies.lower_name like internal_rules.value)

),

-- A customer that was merged away and the one it was merged into are no two candidates.
stated_merges as (

    select
        account_id,
        min(into_account_id) as into_account_id
    from (
        select
            customer_id as account_id,
            merged_into_customer_id as into_account_id
        from {{ ref('stg_customers') }}
        where is_latest and merged_into_customer_id is not null
        union all
        select
            account_id,
            into_account_id
        from decisions
        where action = 'merge'
    ) as merge_statements
    group by account_id
    having count(distinct into_account_id) = 1

),

known_parties as (

    select
        customer_id as account_id,
        plain_name,
        domain,
        tax_id
    from customers
    union all
    select
        companies.exact_account_id as account_id,
        companies.plain_name,
        companies.domain,
        companies.tax_id
    from companies
    left join internal_records on companies.record_id = internal_records.record_id
    where
        companies.exact_account_id is not null
        and coalesce(companies.decided, 'link') = 'link'
        and not companies.is_archived
        and internal_records.record_id is null

),

account_keys as (

    select distinct
        party_keys.rule,
        party_keys.key_text,
        party_keys.account_id,
        coalesce(stated_merges.into_account_id, party_keys.account_id) as survivor_id
    from (
        {%- for rule, column in {'tax_id': 'tax_id', 'domain': 'domain', 'name': 'plain_name'}.items() %}
        select
            '{{ rule }}' as rule,
            {{ column }} as key_text,
            account_id
        from known_parties
        {% if not loop.last %}union all{% endif %}
        {%- endfor %}
    ) as party_keys
    left join stated_merges on party_keys.account_id = stated_merges.account_id
    left join {{ ref('free_mail_domains') }} as free_mail_domains
        on party_keys.rule = 'domain' and party_keys.key_text = free_mail_domains.domain
    where party_keys.key_text is not null and free_mail_domains.domain is null

),

unknown_records as (

    select companies.*
    from companies
    left join internal_records on companies.record_id = internal_records.record_id
    where companies.exact_account_id is null and internal_records.record_id is null

),

record_keys as (

    {%- for rule, column in {'tax_id': 'tax_id', 'domain': 'domain', 'name': 'plain_name'}.items() %}
    select
        record_id,
        '{{ rule }}' as rule,
        {{ column }} as key_text
    from unknown_records
    where {{ column }} is not null
    {% if not loop.last %}union all{% endif %}
    {%- endfor %}

),

matches as (

    select
        record_keys.record_id,
        record_keys.rule,
        record_keys.key_text,
        account_keys.account_id,
        account_keys.survivor_id
    from record_keys
    inner join account_keys
        on
            record_keys.rule = account_keys.rule
            and record_keys.key_text = account_keys.key_text

),

rule_matches as (

    select
        rules.valid_from_date,
        rules.priority,
        matches.record_id,
        matches.rule,
        matches.key_text,
        count(distinct matches.survivor_id) as candidates,
        min(matches.survivor_id) as survivor_id,
        case when count(distinct matches.account_id) = 1 then min(matches.account_id) else min(matches.survivor_id) end
            as account_id,
        {{ joined_texts('matches.account_id', ', ') }} as candidate_ids
    from matches
    inner join rules on matches.rule = rules.rule
    where rules.is_on
    group by rules.valid_from_date, rules.priority, matches.record_id, matches.rule, matches.key_text

),

best_matches as (

    select *
    from (
        select
            *,
            row_number() over (partition by valid_from_date, record_id order by priority, rule) as place
        from rule_matches
    ) as ranked
    where place = 1

),

-- Other evidence that names somebody else, and stronger evidence, known on both sides, that differs.
contradictions as (

    select
        best_matches.valid_from_date,
        best_matches.record_id,
        other_matches.candidate_ids as other_ids,
        other_matches.rule || ' ' || other_matches.key_text || ' is that of ' || other_matches.candidate_ids as evidence
    from best_matches
    inner join rule_matches as other_matches
        on
            best_matches.valid_from_date = other_matches.valid_from_date
            and best_matches.record_id = other_matches.record_id
            and best_matches.rule <> other_matches.rule
    where
        not exists (
            select 1
            from matches
            where
                matches.record_id = best_matches.record_id
                and matches.rule = other_matches.rule
                and matches.survivor_id = best_matches.survivor_id
        )
    union all
    select
        best_matches.valid_from_date,
        best_matches.record_id,
        null as other_ids,
        record_keys.rule || ' ' || record_keys.key_text || ' is not that of ' || best_matches.account_id as evidence
    from best_matches
    inner join rules
        on
            best_matches.valid_from_date = rules.valid_from_date
            and best_matches.priority > rules.priority
    inner join record_keys
        on
            best_matches.record_id = record_keys.record_id
            and rules.rule = record_keys.rule
    where
        exists (
            select 1
            from account_keys
            where account_keys.rule = rules.rule and account_keys.survivor_id = best_matches.survivor_id
        )
        and not exists (
            select 1
            from account_keys
            where
                account_keys.rule = rules.rule
                and account_keys.survivor_id = best_matches.survivor_id
                and account_keys.key_text = record_keys.key_text
        )

),

contradicted as (

    select
        valid_from_date,
        record_id,
        {{ joined_texts('other_ids', ', ') }} as other_ids,
        {{ joined_texts('evidence', '; ') }} as evidence
    from contradictions
    group by valid_from_date, record_id

),

verdicts as (

    select
        best_matches.valid_from_date,
        best_matches.record_id,
        best_matches.rule,
        best_matches.account_id,
        case
            when best_matches.candidates > 1 then 'ambiguous'
            when contradicted.record_id is not null then 'contradictory'
            else 'linked'
        end as verdict,
        best_matches.candidate_ids || coalesce(', ' || contradicted.other_ids, '') as candidate_ids,
        best_matches.rule || ' ' || best_matches.key_text || ' is that of ' || best_matches.candidate_ids
        || coalesce('; ' || contradicted.evidence, '') as evidence
    from best_matches
    left join contradicted
        on
            best_matches.valid_from_date = contradicted.valid_from_date
            and best_matches.record_id = contradicted.record_id

),

records_in_periods as (

    select
        companies.source_system,
        companies.source_account_id,
        companies.record_id,
        case when companies.decided is null then 'account_number' else 'decision' end as matched_by,
        companies.exact_account_id as account_id,
        'linked' as verdict,
        cast(null as text) as candidate_ids,
        cast(null as text) as evidence,
        {{ beginning() }} as valid_from_date
    from companies
    where companies.exact_account_id is not null
    union all
    select
        companies.source_system,
        companies.source_account_id,
        companies.record_id,
        case when verdicts.verdict = 'linked' then verdicts.rule else 'own_id' end as matched_by,
        case when verdicts.verdict = 'linked' then verdicts.account_id else companies.record_id end as account_id,
        case
            when internal_records.record_id is not null then 'internal'
            else coalesce(verdicts.verdict, 'alone')
        end as verdict,
        verdicts.candidate_ids,
        verdicts.evidence,
        rule_periods.valid_from_date
    from companies
    cross join rule_periods
    left join internal_records on companies.record_id = internal_records.record_id
    left join verdicts
        on
            companies.record_id = verdicts.record_id
            and rule_periods.valid_from_date = verdicts.valid_from_date
    where companies.exact_account_id is null

),

-- One row for neighbouring periods in which nothing differs.
changes as (

    select *
    from (
        select
            *,
            lag(account_id || ' ' || matched_by || ' ' || verdict)
                over (partition by record_id order by valid_from_date) as verdict_before
        from records_in_periods
    ) as placed
    where verdict_before is distinct from account_id || ' ' || matched_by || ' ' || verdict

),

final as (

    select
        source_system,
        source_account_id,
        record_id,
        account_id,
        matched_by,
        verdict,
        candidate_ids,
        evidence,
        nullif(valid_from_date, {{ beginning() }}) as valid_from_date,
        lead(valid_from_date) over (partition by record_id order by valid_from_date) as valid_until_date
    from changes

)

select * from final
