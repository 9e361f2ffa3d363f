package erasure

// What tests of the SQL use.
var (
	DeleteUpload  = deleteUpload
	RestoreUpload = restoreUpload
	Seal          = seal
	RequestIn     = request
	ApproveIn     = approve
	CancelIn      = cancel
	TenantTables  = tenantTables
	NotExported   = notExported
	ErrSamePerson = errSamePerson
	ErrErasing    = errErasing
)

// ExportedTables are the tables that exports have.
func ExportedTables() (all []string) {
	for _, s := range exported {
		all = append(all, s.tables...)
	}
	return all
}
