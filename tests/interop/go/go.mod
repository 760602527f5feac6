module signet/interop

go 1.24
