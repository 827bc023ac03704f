/* ingestion_settings.h - an installation with two relays in allowed countries and one abroad. */
#ifndef INGESTION_SETTINGS_H
#define INGESTION_SETTINGS_H

#include "tandem/settings.h"

static inline struct td_settings ingestion_settings(void)
{
    static char *route[] = {(char *)"primary", (char *)"backup"};
    static char *countries[] = {(char *)"SE", (char *)"DE"};
    struct td_settings settings = {.kafka_lanes = 12};

    settings.route = (struct td_strings){route, 2};
    settings.allowed_countries = (struct td_strings){countries, 2};
    settings.relays[0] = (struct td_relay_settings){
        .name = (char *)"primary", .country = (char *)"SE", .max_message_bytes = 1000000};
    settings.relays[1] = (struct td_relay_settings){
        .name = (char *)"backup", .country = (char *)"DE", .max_message_bytes = 2000000};
    settings.relays[2] = (struct td_relay_settings){.name = (char *)"abroad", .country = (char *)"US"};
    settings.relay_count = 3;
    settings.ingestion_deadline_ms = 86400000;
    settings.ingestion_max_attachment_bytes = 10 << 20;
    return settings;
}

#endif /* INGESTION_SETTINGS_H */
