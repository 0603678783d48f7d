// A library that has none of the functions.
int easel_no_runtime;
