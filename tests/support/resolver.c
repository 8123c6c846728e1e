/* Loaded into a process under test: where the name "redis.test" leads is what a file says, so that it can be moved. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int resolve(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *restrict node, const char *restrict service, const struct addrinfo *restrict hints,
                struct addrinfo **restrict found) {
    resolve *of_the_system = (resolve *)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *path = getenv("REDIS_TEST_FILE");
    char address[64] = "";
    if (path && node && !strcmp(node, "redis.test")) {
        FILE *file = fopen(path, "r");
        if (file && fscanf(file, "%63s", address) == 1) node = address;
        if (file) fclose(file);
    }
    return of_the_system(node, service, hints, found);
}
