/* service.h - ingestion as td_app_main runs it. */
#ifndef INGESTION_SERVICE_H
#define INGESTION_SERVICE_H

#include "tandem/app.h"

extern const struct td_service ingestion_service;

#endif /* INGESTION_SERVICE_H */
