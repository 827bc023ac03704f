/* submit_check.h - what the services would say and make, without any of them: --dry-run and --preview. */
#ifndef CTL_SUBMIT_CHECK_H
#define CTL_SUBMIT_CHECK_H

#include "recipients.h"
#include "submit_options.h"

/** Judge the campaign and every recipient as ingestion does. @return CTL_OK, CTL_REFUSED, or another exit code */
int submit_dry_run(struct submit_options *options, const char *id, const Tandem__Mail__V1__Campaign *campaign,
                   struct recipients *recipients);
/** Write the first mails as rendering makes them, without DKIM signatures, which dispatch adds. @return as above
 */
int submit_preview(struct submit_options *options, const char *id, const Tandem__Mail__V1__Campaign *campaign,
                   struct recipients *recipients);

#endif /* CTL_SUBMIT_CHECK_H */
