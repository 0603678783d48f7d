module easel.dev/e2e/cluster/programs

go 1.24
