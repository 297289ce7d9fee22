module knoll.dev/samples/rest-api-go

go 1.22
