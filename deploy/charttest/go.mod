module entrepot/deploy/charttest

go 1.26.0
