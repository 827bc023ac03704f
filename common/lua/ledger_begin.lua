-- placeholder, replaced by the ledger
return {}
