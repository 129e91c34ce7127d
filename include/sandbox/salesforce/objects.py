"""The object types of the sandbox's Salesforce org: fields with their types, parents, and which keep history."""

from dataclasses import dataclass, field

SYSTEM_FIELDS = {
    "Id": "id",
    "IsDeleted": "boolean",
    "CreatedDate": "datetime",
    "LastModifiedDate": "datetime",
    "SystemModstamp": "datetime",
}


@dataclass(frozen=True)
class SObject:
    """An object type: the first characters of its ids, its own fields, and its parents by relationship name.

    `history` is the object that keeps its field history; `is_record` tells records from what Salesforce writes
    beside them.
    """

    name: str
    prefix: str
    own_fields: dict[str, str]
    parents: dict[str, str] = field(default_factory=dict)
    history: str | None = None
    is_record: bool = True

    @property
    def fields(self) -> dict[str, str]:
        """All fields by name, with their types."""
        return SYSTEM_FIELDS | self.own_fields


def _history(name: str, prefix: str, parent: str) -> SObject:
    fields = {f"{parent}Id": "reference", "Field": "picklist", "OldValue": "anyType", "NewValue": "anyType"}
    return SObject(name, prefix, fields, {parent: parent}, is_record=False)


OBJECTS = {
    each.name: each
    for each in (
        SObject("User", "005", {"Name": "string", "IsActive": "boolean"}),
        SObject(
            "Account",
            "001",
            {
                "Name": "string",
                "AccountNumber": "string",
                "ERP_Number__c": "string",
                "Industry": "picklist",
                "BillingCountry": "string",
                "Description": "textarea",
                "IsPersonAccount": "boolean",
                "OwnerId": "reference",
                "Website": "url",
                "ParentId": "reference",
                "MasterRecordId": "reference",
            },
            {"Owner": "User"},
            "AccountHistory",
        ),
        SObject(
            "Contact",
            "003",
            {
                "AccountId": "reference",
                "LastName": "string",
                "Email": "email",
                "Title": "string",
                "HasOptedOutOfEmail": "boolean",
                "OwnerId": "reference",
            },
            {"Account": "Account", "Owner": "User"},
            "ContactHistory",
        ),
        SObject(
            "Opportunity",
            "006",
            {
                "AccountId": "reference",
                "Name": "string",
                "Amount": "currency",
                "CurrencyIsoCode": "picklist",
                "StageName": "picklist",
                "Type": "picklist",
                "CloseDate": "date",
                "IsWon": "boolean",
                "IsClosed": "boolean",
                "LeadSource": "picklist",
                "OwnerId": "reference",
            },
            {"Account": "Account", "Owner": "User"},
            "OpportunityFieldHistory",
        ),
        SObject(
            "OpportunityContactRole",
            "00k",
            {
                "OpportunityId": "reference",
                "ContactId": "reference",
                "Role": "picklist",
                "IsPrimary": "boolean",
            },
            {"Opportunity": "Opportunity", "Contact": "Contact"},
        ),
        SObject(
            "Case",
            "500",
            {
                "AccountId": "reference",
                "Subject": "string",
                "Priority": "picklist",
                "Status": "picklist",
                "IsClosed": "boolean",
                "ClosedDate": "datetime",
                "OwnerId": "reference",
            },
            {"Account": "Account", "Owner": "User"},
            "CaseHistory",
        ),
        _history("AccountHistory", "017", "Account"),
        _history("ContactHistory", "03j", "Contact"),
        _history("OpportunityFieldHistory", "00h", "Opportunity"),
        _history("CaseHistory", "02f", "Case"),
        SObject(
            "OpportunityHistory",
            "008",
            {
                "OpportunityId": "reference",
                "StageName": "picklist",
                "Amount": "currency",
                "CloseDate": "date",
                "Probability": "percent",
            },
            {"Opportunity": "Opportunity"},
            is_record=False,
        ),
        SObject(
            "FieldDefinition",
            "00N",
            {
                "QualifiedApiName": "string",
                "IsFieldHistoryTracked": "boolean",
                "EntityDefinitionId": "reference",
            },
            {"EntityDefinition": "EntityDefinition"},
            is_record=False,
        ),
        SObject("EntityDefinition", "4ie", {"QualifiedApiName": "string"}, is_record=False),
    )
}
SNAPSHOT_FIELDS = ("StageName", "Amount", "CloseDate")
"""A change of one of these writes a row of OpportunityHistory, whatever is tracked."""
