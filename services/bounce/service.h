/* service.h - the bounce service, for main. */
#ifndef SERVICE_H
#define SERVICE_H

#include "tandem/app.h"

extern const struct td_service bounce_service;

#endif /* SERVICE_H */
