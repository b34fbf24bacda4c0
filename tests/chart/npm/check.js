// Validates custom resources: a JSON array of objects on stdin, a JSON array of complaints on stdout, null where fine.
import { text } from 'node:stream/consumers'

const PACKAGES = {
  'external-secrets.io': 'external-secrets',
  'gateway.networking.k8s.io': 'gateway-api',
  'grafana.integreatly.org': 'grafana-operator',
  'kafka.strimzi.io': 'strimzi-kafka-operator',
  'keda.sh': 'keda',
  'monitoring.coreos.com': 'prometheus-operator',
  'networking.istio.io': 'istio'
}

async function complaint (object) {
  const group = object.apiVersion.split('/')[0]
  const module = await import(`@kubernetes-models/${PACKAGES[group]}/${object.apiVersion}/${object.kind}`)
  try {
    new module[object.kind](object).validate()
    return null
  } catch (error) {
    return error.message
  }
}

console.log(JSON.stringify(await Promise.all(JSON.parse(await text(process.stdin)).map(complaint))))
